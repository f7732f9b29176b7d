"""The stream of batches: whole epochs, an order of its own, a state to go on from; and steps for a number of epochs."""

import itertools
import math

import pytest
import torch

from datasets import batches as batches_module
from datasets.batches import Batches, fits, steps_of


def stream(batch_size, seed=0, count=10):
    return Batches(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), batch_size, seed)


def draw(batches, count):
    """The next `count` batches as lists of the images' values."""
    return [batches.next()[0].flatten().tolist() for _ in range(count)]


def test_an_epoch_holds_each_image_once():
    first, second = draw(stream(5), 2)
    assert len(first) == len(second) == 5
    assert sorted(first + second) == list(range(10))


def test_a_batch_at_the_end_of_an_epoch_is_filled_up_from_the_next():
    drawn = draw(stream(4), 5)
    assert [len(batch) for batch in drawn] == [4] * 5
    values = list(itertools.chain.from_iterable(drawn))
    assert sorted(values[:10]) == sorted(values[10:]) == list(range(10))


def test_a_batch_larger_than_the_data_set_holds_whole_epochs_and_a_part_of_one():
    (batch,) = draw(stream(25), 1)
    assert sorted(batch[:10]) == sorted(batch[10:20]) == list(range(10))
    assert len(set(batch[20:])) == 5


def test_the_order_is_a_function_of_the_seed_and_changes_with_each_epoch():
    first, again, other = draw(stream(10), 3), draw(stream(10), 3), draw(stream(10, seed=1), 3)
    assert first == again
    assert first != other
    assert len({tuple(epoch) for epoch in first}) == 3
    assert first[0] != list(range(10))


def test_the_order_does_not_depend_on_the_global_random_state_and_leaves_it_alone():
    torch.manual_seed(1)
    first, after = draw(stream(4), 5), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert draw(stream(4), 5) == first


@pytest.mark.parametrize("before", [0, 1, 2, 3, 5])
def test_a_stream_goes_on_exactly_from_its_state(before):
    original, restored = stream(4), stream(4)
    draw(original, before)
    state = original.state_dict()
    expected = draw(original, 6)
    draw(restored, 7)
    restored.load_state_dict(state)
    assert draw(restored, 6) == expected


@pytest.mark.parametrize(
    ("num_epochs", "num_images", "batch_size", "n_dis", "steps"),
    [
        (1, 1000, 100, 1, 10),
        (1, 1001, 100, 1, 11),
        (50, 60_000, 64, 1, 46_875),
        (10, 1000, 100, 5, 20),
        (1, 10, 64, 5, 1),
    ],
)
def test_steps_are_the_updates_of_g_in_so_many_passes_of_d(num_epochs, num_images, batch_size, n_dis, steps):
    assert steps_of(num_epochs, num_images, batch_size, n_dis) == steps
    assert steps == max(1, math.ceil(num_epochs * num_images / batch_size / n_dis))


# ---- Images that do not fit on the device ---------------------------------------------------------------------------


@pytest.fixture
def beside(monkeypatch):
    """Makes a stream whose images stay beside the device, here the CPU itself: a thread cuts its batches."""
    monkeypatch.setattr(batches_module, "fits", lambda images, device: False)

    return stream


def direct(*args):
    """A stream whose images lie on the device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "fits", fits)
        return stream(*args)


def test_a_thread_cuts_the_same_batches(beside):
    assert draw(beside(4), 20) == draw(direct(4), 20)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 5])
def test_a_state_is_of_what_was_handed_out_and_not_of_what_lies_ready(beside, before):
    ahead, plain = beside(4), direct(4)
    draw(ahead, before), draw(plain, before)
    assert ahead.state_dict() == plain.state_dict()
    expected = draw(plain, 6)
    assert draw(ahead, 6) == expected
    restored = beside(4)
    draw(restored, 7)
    plain = direct(4)
    draw(plain, before)
    restored.load_state_dict(plain.state_dict())
    assert draw(restored, 6) == expected


def test_another_seed_drops_what_lies_ready(beside):
    ahead, plain = beside(4), direct(4)
    for both in (ahead, plain):
        draw(both, 3)
        both.change_seed(5)
    assert draw(ahead, 6) == draw(plain, 6)


def test_an_error_of_the_thread_is_that_of_the_step(beside, monkeypatch):
    ahead = beside(4)
    monkeypatch.setattr(torch, "index_select", lambda *args, **settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ahead.next()


@pytest.mark.parametrize(("free", "fit"), [(2000, True), (1999, False)])
def test_images_lie_on_a_cuda_device_where_half_of_its_free_memory_holds_them(monkeypatch, free, fit):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    images = torch.zeros(10, 1, 10, 10, dtype=torch.uint8)
    assert batches_module.fits(images, torch.device("cuda", 0)) == fit
    assert batches_module.fits(images, torch.device("cpu"))
