"""The evaluator that goes on when a study is refused, and stops at a defect."""

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.transforms import Compose, Lambdad, Transform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from shared_nets.data.studies import StudyDataset
from shared_nets.engines.study_evaluator import StudyEvaluator, keep_as_list
from shared_nets.refusals import InputRefused


class Sum(nn.Module):
    """Answers with the sum of the image, times ``factor``; remembers in which state it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.was_training: list[bool] = []
        self.had_gradients: list[bool] = []

    def forward(self, image: Tensor, factor: Tensor | None = None) -> Tensor:
        self.was_training.append(self.training)
        self.had_gradients.append(torch.is_grad_enabled())
        total = image.sum(dim=(1, 2, 3))[:, None]  # (B, 1)
        return total if factor is None else total * factor


class Picture(Transform):
    """Makes an image whose voxels add up to 4 × ``value``; refuses negative values, fails without one."""

    def __call__(self, data):
        if data["value"] < 0:
            raise InputRefused("PIXEL_NOT_HU", "The values are negative.", "Export it again.")
        return {**data, "image": torch.full((1, 2, 2), float(data["value"]))}


@pytest.fixture
def run():
    """Give ``run(studies, **options) -> (outputs, batches, network)`` after every study."""

    def run_studies(studies, *, network=None, **options):
        network = network or Sum()
        loader = DataLoader(
            StudyDataset(studies, Compose([Picture()])), batch_size=1, collate_fn=keep_as_list
        )
        evaluator = StudyEvaluator(
            device=torch.device("cpu"), val_data_loader=loader, network=network, **options
        )
        outputs, batches = [], []

        @evaluator.on(Events.ITERATION_COMPLETED)
        def keep(engine):
            outputs.append(engine.state.output)
            batches.append(engine.state.batch)

        evaluator.run()
        return outputs, batches, network

    return run_studies


THREE = [{"study_id": "s1", "value": 1}, {"study_id": "s2", "value": -1}, {"study_id": "s3", "value": 3}]


def test_one_refused_study_does_not_stop_the_others(run):
    (first,), (second,), (third,) = run(THREE)[0]
    assert first["study_id"] == "s1"
    assert first["pred"].tolist() == [4.0]
    assert set(second) == {"study_id", "refusal"}
    assert second["study_id"] == "s2"
    assert second["refusal"].code == "PIXEL_NOT_HU"
    assert third["study_id"] == "s3"
    assert third["pred"].tolist() == [12.0]


def test_the_network_never_sees_a_refused_study(run):
    _, _, network = run(THREE)
    assert len(network.was_training) == 2


def test_the_network_is_asked_in_eval_mode_without_gradients(run):
    _, _, network = run(THREE, network=Sum().train())
    assert network.was_training == [False, False]
    assert network.had_gradients == [False, False]


def test_extra_inputs_come_by_keyword_with_a_batch_axis_and_default_where_missing(run):
    studies = [{**THREE[0], "times": 10.0}, {**THREE[2], "times": None}]
    (first,), (second,) = run(studies, extra_keys={"factor": "times"})[0]
    assert first["pred"].tolist() == [40.0]
    assert second["pred"].tolist() == [12.0]


def test_the_label_comes_out_beside_the_prediction_where_there_is_one(run):
    (first,), (second,) = run([{**THREE[0], "answer": 5.0}, THREE[2]], label_key="answer")[0]
    assert first["label"] == 5.0
    assert "label" not in second


def test_postprocessing_sees_item_and_prediction_and_skips_refused_studies(run):
    post = Compose([Lambdad("pred", lambda pred: pred + 1), _Conclude()])
    outputs, batches, _ = run(THREE, postprocessing=post)
    assert outputs[0][0]["pred"].tolist() == [5.0]
    assert {**batches[0][0], **outputs[0][0]}["result"] == "s1: value 1 gives 5"
    assert set(outputs[1][0]) == {"study_id", "refusal"}


class _Conclude(Transform):
    def __call__(self, data):
        return {
            **data,
            "result": f"{data['study_id']}: value {data['value']} gives {data['pred'].item():.0f}",
        }


def test_a_defect_in_preprocessing_is_raised(run):
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        run([THREE[0], {"study_id": "s2"}])
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_defect_of_the_network_is_raised(run):
    with pytest.raises(TypeError, match="unexpected keyword argument 'age'"):
        run([{**THREE[0], "age": 3.0}], extra_keys={"age": "age"})


def test_events_of_the_forward_pass_do_not_fire_for_a_refused_study():
    loader = DataLoader(StudyDataset(THREE, Compose([Picture()])), batch_size=1, collate_fn=keep_as_list)
    evaluator = StudyEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=Sum())
    fired = []
    for event in (IterationEvents.FORWARD_COMPLETED, IterationEvents.MODEL_COMPLETED):
        evaluator.add_event_handler(event, lambda engine: fired.append(engine.state.iteration))
    evaluator.run()
    assert fired == [1, 1, 3, 3]


def test_items_are_collated_into_a_plain_list():
    items = ({"study_id": "s1"}, {"study_id": "s2"})
    assert keep_as_list(items) == [{"study_id": "s1"}, {"study_id": "s2"}]


def test_studies_go_through_worker_processes_refusals_included():
    loader = DataLoader(
        StudyDataset(THREE, Compose([Picture()])), batch_size=1, collate_fn=keep_as_list, num_workers=1
    )
    codes = [item.get("refusal") and item["refusal"].code for (item,) in loader]
    assert codes == [None, "PIXEL_NOT_HU", None]


def test_a_study_that_postprocessing_refuses_does_not_stop_the_others(run):
    def refuse_large(value: Tensor) -> Tensor:
        if value > 10:
            raise InputRefused("KIDNEY_NOT_FOUND", "No kidney was found.", "Give another scan.")
        return value

    outputs, _, _ = run(
        [{"study_id": "a", "value": 1.0}, {"study_id": "b", "value": 5.0}, {"study_id": "c", "value": 2.0}],
        postprocessing=Compose([Lambdad("pred", refuse_large)]),
    )
    (first,), (second,), (third,) = outputs
    assert [first["study_id"], second["study_id"], third["study_id"]] == ["a", "b", "c"]
    assert second.keys() == {"study_id", "refusal"}
    assert second["refusal"].code == "KIDNEY_NOT_FOUND"
    assert float(third["pred"]) == 8.0
