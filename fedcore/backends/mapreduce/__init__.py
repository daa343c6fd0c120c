"""Computations in the forms that map-reduce systems run, and back."""

from fedcore.backends.mapreduce._conversion import (
    check_computation_compatible_with_map_reduce_form,
    get_broadcast_form_for_computation,
    get_computation_for_broadcast_form,
    get_computation_for_map_reduce_form,
    get_map_reduce_form_for_computation,
    get_state_initialization_computation_for_map_reduce_form,
    parse_tff_to_tf,
)
from fedcore.backends.mapreduce._forms import (
    BroadcastForm,
    DistributeAggregateForm,
    MapReduceForm,
)

# The name that later versions of TFF have here.
from fedcore.federated import federated_secure_modular_sum

__all__ = [
    "BroadcastForm",
    "DistributeAggregateForm",
    "MapReduceForm",
    "check_computation_compatible_with_map_reduce_form",
    "federated_secure_modular_sum",
    "get_broadcast_form_for_computation",
    "get_computation_for_broadcast_form",
    "get_computation_for_map_reduce_form",
    "get_map_reduce_form_for_computation",
    "get_state_initialization_computation_for_map_reduce_form",
    "parse_tff_to_tf",
]
