"""Views: how many, which ones, and what is averaged."""

import pytest
import torch

from shared_nets.inferers.dihedral_views import DihedralViewsInferer


def seen_by(num_views: int, image: torch.Tensor) -> list[list[list[float]]]:
    seen = []

    def network(view):
        seen.append(view[0, 0].tolist())
        return torch.zeros(1, 1)

    DihedralViewsInferer(num_views)(image, network)
    return seen


IMAGE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]


def test_the_views_are_the_image_its_mirror_images_and_its_turns():
    expected = [
        [[1, 2], [3, 4]],
        [[2, 1], [4, 3]],
        [[3, 4], [1, 2]],
        [[4, 3], [2, 1]],
        [[1, 3], [2, 4]],
        [[2, 4], [1, 3]],
        [[3, 1], [4, 2]],
        [[4, 2], [3, 1]],
    ]
    for num_views in (1, 2, 4, 8):
        assert seen_by(num_views, IMAGE) == expected[:num_views]


def test_logits_are_averaged_not_probabilities():
    logits = iter([torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])])
    assert DihedralViewsInferer(2)(IMAGE, lambda view: next(logits)).tolist() == [[2.0, 0.0]]


def test_keywords_and_arguments_reach_the_network_with_every_view():
    def network(view, more, *, metadata):
        return view.mean(dim=(2, 3)) + more + metadata

    found = DihedralViewsInferer(4)(IMAGE, network, 10.0, metadata=torch.tensor([[100.0]]))
    assert found.tolist() == [[112.5]]


def test_eight_views_give_one_answer_for_an_image_turned_or_mirrored():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 5).eval()

    def network(view):
        return layer(view).relu().amax(dim=(2, 3))

    image = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        answers = [
            DihedralViewsInferer(8)(view, network)
            for view in (image, image.flip(3), image.rot90(1, (2, 3)), image.transpose(2, 3))
        ]
        alone = [network(view) for view in (image, image.flip(3))]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])
    assert not torch.allclose(alone[0], alone[1])


def test_one_view_is_the_network_itself_and_takes_any_shape():
    wide = torch.rand(1, 1, 2, 5)
    assert torch.equal(DihedralViewsInferer(1)(wide, lambda x: x.mean(dim=(2, 3))), wide.mean(dim=(2, 3)))
    assert DihedralViewsInferer(4)(wide, lambda x: x.mean(dim=(2, 3))).shape == (1, 1)
    with pytest.raises(ValueError, match="must be square for 8 views"):
        DihedralViewsInferer(8)(wide, lambda x: x.mean(dim=(2, 3)))


def test_other_numbers_of_views_are_an_error():
    with pytest.raises(ValueError, match=r"num_views must be one of \[1, 2, 4, 8\], got 3"):
        DihedralViewsInferer(3)
