"""Names that later TFF (up to 0.87) gives to what 0.40 has: what is offered, and how."""

import inspect

import pytest

import fedlearn


def named(name):
    found = fedlearn
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("BatchOutput", "models.BatchOutput"),
        ("MetricFinalizersType", "metrics.MetricFinalizersType"),
        ("Model", "models.VariableModel"),
        ("ModelWeights", "models.ModelWeights"),
        (
            "build_personalization_eval",
            "algorithms.build_personalization_eval_computation",
        ),
        ("from_keras_model", "models.from_keras_model"),
        ("reconstruction.DatasetSplitFn", "models.ReconstructionDatasetSplitFn"),
        ("reconstruction.Model", "models.ReconstructionModel"),
        (
            "reconstruction.get_global_variables",
            "models.ReconstructionModel.get_global_variables",
        ),
        (
            "reconstruction.get_local_variables",
            "models.ReconstructionModel.get_local_variables",
        ),
    ],
)
def test_later_name_is_the_same_object(name, later):
    assert named(name) is named(later)


def test_reconstruction_model_of_keras_layers_is_the_same_function():
    older = inspect.signature(fedlearn.reconstruction.from_keras_model)
    later = inspect.signature(
        fedlearn.models.ReconstructionModel.from_keras_model_and_layers
    )
    assert list(older.parameters) == list(later.parameters)


# What later TFF calls otherwise and builds otherwise: the later name is a thing of its own.
@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("build_federated_evaluation", "algorithms.build_fed_eval"),
        (
            "reconstruction.build_federated_evaluation",
            "algorithms.build_fed_recon_eval",
        ),
        ("reconstruction.build_training_process", "algorithms.build_fed_recon"),
    ],
)
def test_later_name_is_a_thing_of_its_own(name, later):
    assert named(name) is not named(later)
    assert callable(named(name))
    hint = inspect.signature(named(later)).return_annotation
    assert hint in ("LearningProcess", fedlearn.templates.LearningProcess)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "algorithms.build_fed_recon",
            "model_fn loss_fn metrics_fn server_optimizer_fn client_optimizer_fn "
            "reconstruction_optimizer_fn dataset_split_fn client_weighting "
            "model_distributor model_aggregator_factory metrics_aggregator",
        ),
        (
            "algorithms.build_fed_recon_eval",
            "model_fn loss_fn metrics_fn reconstruction_optimizer_fn dataset_split_fn "
            "model_distributor metrics_aggregation_process",
        ),
        (
            "models.ReconstructionModel.from_keras_model_and_layers",
            "keras_model global_layers local_layers input_spec",
        ),
        (
            "models.ReconstructionModel.from_keras_model_and_variables",
            "keras_model global_trainable_variables global_non_trainable_variables "
            "local_trainable_variables local_non_trainable_variables input_spec",
        ),
        (
            "optimizers.build_adamw",
            "learning_rate beta_1 beta_2 epsilon weight_decay",
        ),
    ],
)
def test_later_signature(name, parameters):
    assert list(inspect.signature(named(name)).parameters) == parameters.split()
