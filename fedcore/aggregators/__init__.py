"""Aggregators: factories of processes that bring clients' values together."""

from fedcore.aggregators import encoders
from fedcore.aggregators.clipping import clipping_factory
from fedcore.aggregators.concat import concat_factory
from fedcore.aggregators.discrete_fourier import DiscreteFourierTransformFactory
from fedcore.aggregators.discretization import DiscretizationFactory
from fedcore.aggregators.elias_gamma import EliasGammaEncodedSumFactory
from fedcore.aggregators.encoded_sum import EncodedSumFactory
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.aggregators.hadamard import HadamardTransformFactory
from fedcore.aggregators.mean import MeanFactory, UnweightedMeanFactory
from fedcore.aggregators.measurements import add_measurements
from fedcore.aggregators.modular_clipping import ModularClippingSumFactory
from fedcore.aggregators.quantile_estimation import (
    NoPrivacyQuantileQuery,
    PrivateQuantileEstimationProcess,
    QuantileQuery,
)
from fedcore.aggregators.sampling import (
    UnweightedReservoirSamplingFactory,
    federated_sample,
)
from fedcore.aggregators.secure_modular_sum import SecureModularSumFactory
from fedcore.aggregators.secure_quantized_sum import secure_quantized_sum
from fedcore.aggregators.secure_sum import SecureSumFactory
from fedcore.aggregators.stochastic_discretization import (
    StochasticDiscretizationFactory,
)
from fedcore.aggregators.sum import SumFactory
from fedcore.aggregators.weighted import as_weighted_aggregator
from fedcore.aggregators.zeroing import zeroing_factory
from fedcore.federated import federated_max, federated_min

__all__ = [
    "AggregationFactory",
    "DiscreteFourierTransformFactory",
    "DiscretizationFactory",
    "EliasGammaEncodedSumFactory",
    "EncodedSumFactory",
    "HadamardTransformFactory",
    "MeanFactory",
    "ModularClippingSumFactory",
    "NoPrivacyQuantileQuery",
    "PrivateQuantileEstimationProcess",
    "QuantileQuery",
    "SecureModularSumFactory",
    "SecureSumFactory",
    "StochasticDiscretizationFactory",
    "SumFactory",
    "UnweightedAggregationFactory",
    "UnweightedMeanFactory",
    "UnweightedReservoirSamplingFactory",
    "WeightedAggregationFactory",
    "add_measurements",
    "as_weighted_aggregator",
    "clipping_factory",
    "concat_factory",
    "encoders",
    "federated_max",
    "federated_min",
    "federated_sample",
    "secure_quantized_sum",
    "zeroing_factory",
]
