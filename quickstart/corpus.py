"""The text that the base model is pretrained on: saved queries with and without labels, the schema, notes."""

import random
from collections.abc import Iterator

from quickstart.grammar import draw, filter_sql, sql
from quickstart.phrases import say
from quickstart.words import DIMENSIONS_EN, DIMENSIONS_KO, value_word
from quickstart.world import (
    BRANDS,
    CATEGORIES,
    CITIES,
    GENDERS,
    GRADES,
    PAYMENTS,
    SCHEMA,
    STATUSES,
)

_VALUES = {
    "c.city": CITIES,
    "c.grade": GRADES,
    "c.gender": GENDERS,
    "p.category": CATEGORIES,
    "p.brand": BRANDS,
    "o.status": STATUSES,
    "o.payment": PAYMENTS,
}
_NOTES = [
    "Note: orders.customer_id points to customers.id; order_items.order_id points to orders.id.",
    "Note: order_items.product_id points to products.id, and quantity counts the units of one line.",
    "Note: orders.amount and orders.fee are in won; an order with fee 0 was shipped free.",
    "Note: revenue is the sum of quantity times price over the order items.",
    "Note: month(ordered) runs from 1 to 12 and quarter(ordered) from 1 to 4.",
    "메모: orders.customer_id는 customers.id를 가리키고, order_items.order_id는 orders.id를 가리킨다.",
    "메모: order_items.product_id는 products.id를 가리키며, quantity는 한 줄의 수량이다.",
    "메모: 금액과 배송비는 원 단위이고, 배송비가 0이면 무료 배송이다.",
    "메모: 매출은 수량과 가격을 곱해 더한 값이다.",
    "메모: month(ordered)는 1부터 12까지, quarter(ordered)는 1부터 4까지이다.",
]


def _note(rng: random.Random) -> str:
    pick = rng.random()
    if pick < 0.15:
        return rng.choice(SCHEMA.strip().split("\n"))
    if pick < 0.3:
        return rng.choice(_NOTES)
    if pick < 0.6:
        field = rng.choice(list(_VALUES))
        value, korean = rng.choice(list(_VALUES[field].items()))
        form = rng.choice(["{en} ({k}): {v}", "{ko} {k}: {v}", "{en} {v} = {ko} {k}", "{s} -- {k}, {w}"])
        return form.format(
            en=DIMENSIONS_EN[field][0],
            ko=DIMENSIONS_KO[field],
            k=korean,
            v=value,
            w=value_word(value, "en"),
            s=filter_sql(field, value),
        )
    return f"-- {say(draw(rng), rng.choice(['en', 'ko']), 'note', rng)}"


def documents(count: int, held_out: set[str], seed: int = 0) -> Iterator[str]:
    """`count` documents: 84 % labelled queries, 10 % bare queries, 6 % notes. No query is in `held_out`."""
    rng = random.Random(f"corpus {seed}")
    while count:
        pick = rng.random()
        if pick < 0.06:
            text = _note(rng)
        else:
            intent = draw(rng)
            query = sql(intent)
            if query in held_out:
                continue
            label = f"-- {say(intent, rng.choice(['en', 'ko']), 'note', rng)}\n" if pick > 0.16 else ""
            text = label + query
        count -= 1
        yield text
