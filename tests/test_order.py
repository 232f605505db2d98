"""The order of training rows: of seed and epoch alone, by like length, the same rows a step in any number of processes."""

import pytest

from align.models.order import batches, order


def test_the_order_is_of_seed_and_epoch() -> None:
    lengths = [7 * i % 31 for i in range(100)]
    orders = [order(lengths, 8, 3, epoch) for epoch in range(4)]
    assert all(sorted(o) == list(range(100)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4 and orders[2] == order(lengths, 8, 3, 2)
    assert all(lengths[o[0]] == max(lengths) for o in orders)
    spread = [max(lengths[i] for i in o[at : at + 8]) - min(lengths[i] for i in o[at : at + 8])
              for o in orders for at in range(0, 96, 8)]  # fmt: skip
    assert sum(spread) / len(spread) < 15  # 27 where rows are not sorted
    assert order([], 8, 0, 0) == [] and order([5], 8, 0, 1) == [0]


@pytest.mark.parametrize("n", [1, 3, 7, 8, 9, 16, 31, 32, 33, 40, 100])
@pytest.mark.parametrize("split", [(16, 1, 1), (8, 2, 1), (8, 1, 2), (4, 2, 2), (2, 2, 4), (1, 16, 1), (1, 1, 16)])
def test_a_step_has_the_same_rows_however_it_is_split(n: int, split: tuple[int, int, int]) -> None:
    size, passes, processes = split
    dealt = batches(range(n), *split)
    assert len(dealt) % processes == 0 and all(dealt) and max(map(len, dealt)) <= size
    assert {i for rows in dealt for i in rows} == set(range(n))
    assert sum(map(len, dealt)) == n or n % 16 < processes
    a_step = [dealt[at : at + passes * processes] for at in range(0, len(dealt), passes * processes)]
    assert [sorted({i for rows in step for i in rows}) for step in a_step] == [
        list(range(at, min(at + 16, n))) for at in range(0, n, 16)
    ]
    for step in a_step:  # passes of a step differ by one row at most
        assert max(map(len, step)) - min(map(len, step)) <= 1
