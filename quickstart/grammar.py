"""What can be asked about the warehouse: an intent is a question without words, and its SQL."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from quickstart.world import BRANDS, CATEGORIES, CITIES, GENDERS, GRADES, PAYMENTS, STATUSES, YEARS

FROM = {"customers": "customers", "products": "products", "orders": "orders", "items": "order_items"}
ALIAS = {"customers": "c", "products": "p", "orders": "o", "items": "i"}

# A field is written alias.name; its values and its condition over the (possibly qualified) column.
VALUES: dict[str, list[object]] = {
    "c.city": list(CITIES),
    "c.grade": list(GRADES),
    "c.gender": list(GENDERS),
    "c.joined": list(range(2019, 2025)),
    "c.born_before": [1965, 1970, 1975, 1980, 1985, 1990],
    "c.born_after": [1970, 1975, 1980, 1985, 1990, 1995],
    "c.points_over": [1000, 2000, 3000, 4000, 5000, 6000, 7000],
    "p.category": list(CATEGORIES),
    "p.brand": list(BRANDS),
    "p.price_over": [5000, 8000, 10000, 15000, 20000],
    "p.price_under": [5000, 8000, 10000, 15000, 20000, 30000],
    "p.stock_under": [30, 50, 80, 100, 150, 200],
    "o.status": list(STATUSES),
    "o.payment": list(PAYMENTS),
    "o.year": list(YEARS),
    "o.month": [(y, m) for y in YEARS for m in range(1, 13)],
    "o.quarter": [(y, q) for y in YEARS for q in range(1, 5)],
    "o.amount_over": [10000, 20000, 30000, 50000, 80000, 100000],
    "o.amount_under": [20000, 30000, 50000, 80000],
    "o.free": [0],
}
_CONDITIONS = {
    "c.city": "c.city = '{}'",
    "c.grade": "c.grade = '{}'",
    "c.gender": "c.gender = '{}'",
    "c.joined": "year(c.joined) = {}",
    "c.born_before": "c.birth_year < {}",
    "c.born_after": "c.birth_year > {}",
    "c.points_over": "c.points > {}",
    "p.category": "p.category = '{}'",
    "p.brand": "p.brand = '{}'",
    "p.price_over": "p.price > {}",
    "p.price_under": "p.price < {}",
    "p.stock_under": "p.stock < {}",
    "o.status": "o.status = '{}'",
    "o.payment": "o.payment = '{}'",
    "o.year": "year(o.ordered) = {}",
    "o.month": "year(o.ordered) = {} AND month(o.ordered) = {}",
    "o.quarter": "year(o.ordered) = {} AND quarter(o.ordered) = {}",
    "o.amount_over": "o.amount > {}",
    "o.amount_under": "o.amount < {}",
    "o.free": "o.fee = {}",
}
_SAME = {
    "o.month": "time",
    "o.quarter": "time",
    "o.year": "time",
    "c.born_before": "age",
    "c.born_after": "age",
    "p.price_over": "price",
    "p.price_under": "price",
    "o.amount_over": "amount",
    "o.amount_under": "amount",
}

_CUSTOMER = ["c.city", "c.city", "c.grade", "c.gender", "c.joined", "c.born_before", "c.born_after", "c.points_over"]
_PRODUCT = ["p.category", "p.category", "p.brand", "p.price_over", "p.price_under", "p.stock_under"]
_ORDER = ["o.status", "o.payment", "o.year", "o.month", "o.quarter", "o.amount_over", "o.amount_under", "o.free"]
FILTERS = {
    "customers": _CUSTOMER,
    "products": _PRODUCT,
    "orders": [*_ORDER, "c.city", "c.grade", "c.gender"],
    "items": ["p.category", "p.category", "p.brand", "o.year", "o.month", "o.quarter", "o.status", "c.city"],
}

# A measure is an aggregate over an entity; a dimension is what it is broken down by.
MEASURES = {
    "customers": ["count", "count", "avg points", "sum points", "max points", "min points"],
    "products": ["count", "avg price", "max price", "min price", "sum stock", "avg stock"],
    "orders": ["count", "count", "sum amount", "avg amount", "max amount", "sum fee", "buyers"],
    "items": ["units", "revenue", "containing"],
}
_AGGREGATES = {
    "count": "COUNT(*)",
    "buyers": "COUNT(DISTINCT o.customer_id)",
    "units": "SUM(i.quantity)",
    "revenue": "SUM(i.quantity * p.price)",
    "containing": "COUNT(DISTINCT i.order_id)",
}
DIMENSIONS = {
    "customers": ["c.city", "c.grade", "c.gender", "c.joined"],
    "products": ["p.category", "p.brand"],
    "orders": ["o.status", "o.payment", "o.year", "o.month", "c.city", "c.grade", "c.gender"],
    "items": ["p.category", "p.brand", "p.name", "o.year", "c.city"],
}
_DIMENSION_SQL = {"c.joined": "year(c.joined)", "o.year": "year(o.ordered)", "o.month": "month(o.ordered)"}
LONG = {"c.city", "p.category", "p.brand", "p.name", "o.month"}  # dimensions with enough values for a top k

ROWS = {"customers": ["points", "birth_year"], "products": ["price", "stock"], "orders": ["amount"]}
SHARES = {"customers": ["c.gender", "c.grade"], "orders": ["o.status", "o.payment", "o.free"]}
ABOVE = {"customers": "points", "products": "price", "orders": "amount"}
THRESHOLDS = {"count": (5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300), "units": (50, 100, 200, 300, 500)}
_KINDS = {
    "customers": ["scalar"] * 4 + ["group", "top", "having", "rows", "list", "share", "above", "without"],
    "products": ["scalar"] * 3 + ["group", "rows", "list", "list", "above", "unsold"],
    "orders": ["scalar"] * 5 + ["group", "group", "top", "having", "rows", "share", "above"],
    "items": ["scalar"] * 3 + ["group", "top", "top", "having"],
}


@dataclass(frozen=True)
class Intent:
    """One question: `kind` of result over `entity`, a measure or column, a dimension, filters and one parameter."""

    kind: str
    entity: str
    what: str = ""
    dim: str = ""
    filters: tuple[tuple[str, object], ...] = ()
    high: bool = True
    n: int = 0


def filter_sql(field: str, value: object) -> str:
    """The condition of one filter, its columns qualified by the table's alias."""
    return _CONDITIONS[field].format(*(value if isinstance(value, tuple) else (value,)))


def _from(entity: str, used: Iterable[str]) -> str:
    """The FROM clause with the joins that the aliases in `used` need; every alias is dropped when nothing is joined."""
    need = {u.split(".")[0] for u in used}
    own = ALIAS[entity]
    text = f"{FROM[entity]} {own}"
    if entity == "items":
        text += " JOIN products p ON p.id = i.product_id" if "p" in need else ""
        text += " JOIN orders o ON o.id = i.order_id" if need & {"o", "c"} else ""
    text += " JOIN customers c ON c.id = o.customer_id" if own != "c" and "c" in need else ""
    return text


def _aliases(*texts: str) -> set[str]:
    return {a for a in "cpoi" for text in texts if f"{a}." in text.replace("'", " ").replace("(", " ")}


def sql(intent: Intent) -> str:
    """The reference query of an intent."""
    own = ALIAS[intent.entity]
    where = [filter_sql(f, v) for f, v in intent.filters]
    measure = _AGGREGATES.get(intent.what, "")
    if not measure and " " in intent.what:
        how, column = intent.what.split()
        measure = f"{how.upper()}({own}.{column})"
    dim = _DIMENSION_SQL.get(intent.dim, intent.dim)
    order = "DESC" if intent.high else "ASC"
    tail = ""
    if intent.kind == "scalar":
        head = measure
    elif intent.kind == "group":
        head, tail = f"{dim}, {measure}", f" GROUP BY {dim}"
    elif intent.kind == "top":
        head, tail = f"{dim}, {measure}", f" GROUP BY {dim} ORDER BY {measure} {order} LIMIT {intent.n}"
    elif intent.kind == "having":
        head, tail = f"{dim}, {measure}", f" GROUP BY {dim} HAVING {measure} {'>' if intent.high else '<'} {intent.n}"
    elif intent.kind == "rows":
        name = f"{own}.id" if intent.entity == "orders" else f"{own}.name"
        head, tail = f"{name}, {own}.{intent.what}", f" ORDER BY {own}.{intent.what} {order} LIMIT {intent.n}"
    elif intent.kind == "list":
        head = f"{own}.name"
    elif intent.kind == "share":
        head = f"100.0 * COUNT(*) FILTER (WHERE {filter_sql(intent.what, _share_value(intent))}) / COUNT(*)"
    elif intent.kind == "above":
        column = ABOVE[intent.entity]
        head = "COUNT(*)"
        where.append(f"{own}.{column} {'>' if intent.high else '<'} (SELECT AVG({column}) FROM {FROM[intent.entity]})")
    elif intent.kind == "without":
        head = "COUNT(*)"
        where.append(f"{own}.id NOT IN (SELECT customer_id FROM orders WHERE year(ordered) = {intent.n})")
    else:
        head = "COUNT(*)"
        where.append(f"{own}.id NOT IN (SELECT product_id FROM order_items WHERE quantity >= {intent.n})")
    source = _from(intent.entity, _aliases(head, tail, *where))
    query = f"SELECT {head} FROM {source}" + (f" WHERE {' AND '.join(where)}" if where else "") + tail
    if " JOIN " not in source:
        for prefix in (" ", "(", "(DISTINCT "):
            query = query.replace(f"{prefix}{own}.", prefix)
        query = query.replace(f" FROM {FROM[intent.entity]} {own}", f" FROM {FROM[intent.entity]}", 1)
    return query + ";"


def _share_value(intent: Intent) -> object:
    return VALUES[intent.what][intent.n]


def _filters(rng: random.Random, entity: str, count: int, without: set[str]) -> tuple[tuple[str, object], ...]:
    chosen: dict[str, tuple[str, object]] = {}
    taken = {_SAME.get(w, w) for w in without}
    for _ in range(count):
        field = rng.choice(FILTERS[entity])
        if (key := _SAME.get(field, field)) not in taken:
            taken.add(key)
            chosen[key] = (field, rng.choice(VALUES[field]))
    # A canonical order: the same conditions in another order are the same intent.
    return tuple(sorted(chosen.values(), key=lambda f: list(VALUES).index(f[0])))


def draw(rng: random.Random) -> Intent:
    """A random intent. Nothing says that its result is interesting, or not empty."""
    entity = rng.choices(["customers", "products", "orders", "items"], [3, 2, 4, 3])[0]
    kind = rng.choice(_KINDS[entity])
    what, dim, n, high = rng.choice(MEASURES[entity]), "", 0, rng.random() < 0.65
    few = rng.choices([0, 1, 2], [1, 3, 3])[0]
    if kind == "scalar":
        high = True
        few = rng.choices([1, 2, 3], [2, 5, 2])[0]
    elif kind == "group":
        dim, high = rng.choice([d for d in DIMENSIONS[entity] if d != "p.name"]), True
        few = rng.choices([1, 2], [3, 2])[0]
    elif kind == "top":
        dim, n = rng.choice([d for d in DIMENSIONS[entity] if d in LONG]), rng.choice([1, 2, 3, 4, 5])
        what = what if what[:3] not in ("max", "min") else "count"
    elif kind == "having":
        dim, what = rng.choice([d for d in DIMENSIONS[entity] if d in LONG]), "units" if entity == "items" else "count"
        n = rng.choice(THRESHOLDS[what])
    elif kind == "rows":
        what, n = rng.choice(ROWS[entity]), rng.choice([2, 3, 4, 5, 7, 10])
        few = rng.choices([1, 2], [3, 2])[0]
    elif kind == "list":
        what, high, few = "", True, rng.choice([2, 3])
    elif kind == "share":
        what, high = rng.choice(SHARES[entity]), True
        n = rng.randrange(len(VALUES[what]))
    elif kind == "above":
        what = ABOVE[entity]
    elif kind == "without":
        what, n, high = "", rng.choice(YEARS), True
    else:
        what, n, high = "", rng.choice([1, 2, 3, 5]), True
    own = {what, dim, "o.month" if dim in ("o.year",) else ""}
    if kind == "above":
        own |= {f"{ALIAS[entity]}.{what}_{side}" for side in ("over", "under")}
    return Intent(kind, entity, what, dim, _filters(rng, entity, few, own), high, n)
