"""The warehouse of a small Korean online grocer: four tables, every value drawn from one seed."""

import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = """\
CREATE TABLE customers (id INTEGER, name VARCHAR, city VARCHAR, grade VARCHAR, gender VARCHAR, birth_year INTEGER, joined DATE, points INTEGER);
CREATE TABLE products (id INTEGER, name VARCHAR, category VARCHAR, brand VARCHAR, price INTEGER, stock INTEGER);
CREATE TABLE orders (id INTEGER, customer_id INTEGER, ordered DATE, status VARCHAR, payment VARCHAR, amount INTEGER, fee INTEGER);
CREATE TABLE order_items (order_id INTEGER, product_id INTEGER, quantity INTEGER);
"""  # noqa: E501

# Stored value -> Korean word. The order of each mapping is the order of how common a value is.
CITIES = {
    "Seoul": "서울",
    "Busan": "부산",
    "Incheon": "인천",
    "Daegu": "대구",
    "Suwon": "수원",
    "Daejeon": "대전",
    "Gwangju": "광주",
    "Ulsan": "울산",
    "Jeonju": "전주",
    "Jeju": "제주",
}
GRADES = {"bronze": "브론즈", "silver": "실버", "gold": "골드", "vip": "VIP"}
GENDERS = {"F": "여성", "M": "남성"}
CATEGORIES = {
    "vegetables": "채소",
    "fruit": "과일",
    "snacks": "간식",
    "dairy": "유제품",
    "meat": "정육",
    "drinks": "음료",
    "seafood": "수산물",
    "household": "생활용품",
}
BRANDS = {"Haneul": "하늘", "Dasom": "다솜", "Narae": "나래", "Mirae": "미래", "Badang": "바당", "Sol": "솔"}
STATUSES = {"delivered": "배송 완료된", "cancelled": "취소된", "returned": "반품된", "shipping": "배송 중인"}
PAYMENTS = {"card": "카드", "mobile": "간편결제", "transfer": "계좌이체", "cash": "현금"}
YEARS = (2021, 2022, 2023, 2024)

_GOODS = {
    "vegetables": "cabbage radish spinach onion garlic carrot potato lettuce pepper zucchini",
    "fruit": "apple pear grape tangerine melon peach strawberry persimmon plum kiwi",
    "snacks": "cracker biscuit chips ricecake chocolate candy popcorn yakgwa jelly nuts",
    "dairy": "milk yogurt cheese butter cream icecream kefir pudding latte custard",
    "meat": "bulgogi bacon ham sausage galbi chicken duck pork beef lamb",
    "drinks": "water cola cider coffee greentea juice sikhye lemonade cocoa soda",
    "seafood": "squid shrimp mackerel salmon oyster clam tuna seaweed crab eel",
    "household": "soap tissue shampoo detergent sponge towel candle foil battery broom",
}
_FAMILY = [
    "Kim",
    "Lee",
    "Park",
    "Choi",
    "Jung",
    "Kang",
    "Cho",
    "Yoon",
    "Jang",
    "Lim",
    "Han",
    "Oh",
    "Seo",
    "Shin",
    "Kwon",
]
_GIVEN = [
    "Minjun",
    "Seoyeon",
    "Jiho",
    "Haeun",
    "Dohyun",
    "Yuna",
    "Junseo",
    "Sua",
    "Taeyang",
    "Nari",
    "Woojin",
    "Bora",
    "Sunho",
    "Eunji",
    "Hyunwoo",
    "Dain",
]


def _skewed(rng: random.Random, values: Any, power: float = 0.7) -> Any:
    """A value from `values`, the earlier the likelier (weights 1 / rank ** power)."""
    values = list(values)
    return rng.choices(values, [1 / (i + 1) ** power for i in range(len(values))])[0]


def tables(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table: 420 customers, 160 products, 2,400 orders and about 6,000 order items."""
    rng = random.Random(f"warehouse {seed}")
    names = [f"{family} {given}" for family in _FAMILY for given in _GIVEN]
    names += [f"{family} {given} II" for family in _FAMILY for given in _GIVEN]
    customers = [
        {
            "id": i + 1,
            "name": name,
            "city": _skewed(rng, CITIES),
            "grade": _skewed(rng, GRADES),
            "gender": _skewed(rng, GENDERS),
            "birth_year": rng.randint(1955, 2005),
            "joined": date(2019, 1, 1) + timedelta(days=rng.randrange(2190)),
            "points": rng.randrange(50, 9000, 7),
        }
        for i, name in enumerate(rng.sample(names, 420))
    ]
    goods = [(category, name) for category, names in _GOODS.items() for name in names.split()]
    products: list[dict[str, Any]] = []
    for category, name in goods:
        for brand in rng.sample(list(BRANDS), 2):
            price = int(rng.lognormvariate(9.2, 0.7) // 100 * 100) + rng.choice((0, 50, 80, 90))
            products.append(
                {
                    "id": len(products) + 1,
                    "name": f"{brand} {name}",
                    "category": category,
                    "brand": brand,
                    "price": price,
                    "stock": rng.randint(0, 300),
                }
            )
    orders: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for i in range(2400):
        amount = 0
        for product in rng.sample(products, rng.choice((1, 1, 2, 2, 3, 4, 5))):
            quantity = rng.choice((1, 1, 1, 2, 2, 3, 5))
            amount += quantity * product["price"]
            items.append({"order_id": i + 1, "product_id": product["id"], "quantity": quantity})
        orders.append(
            {
                "id": i + 1,
                "customer_id": _skewed(rng, range(1, 381), 0.4),
                "ordered": date(2021, 1, 1) + timedelta(days=int(1461 * rng.random() ** 0.8)),
                "status": _skewed(rng, STATUSES, 1.3),
                "payment": _skewed(rng, PAYMENTS),
                "amount": amount,
                "fee": rng.choice((0, 0, 2500, 3000, 3500, 4000)),
            }
        )
    return {"customers": customers, "products": products, "orders": orders, "order_items": items}


def write(folder: Path, seed: int = 0) -> dict[str, int]:
    """Write schema.sql and one Parquet file per table; returns the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.sql").write_text(SCHEMA)
    counts = {}
    for name, rows in tables(seed).items():
        table = pa.Table.from_pylist(rows)
        for i, field in enumerate(table.schema):
            if pa.types.is_int64(field.type):
                table = table.set_column(i, field.name, table.column(i).cast(pa.int32()))
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        counts[name] = table.num_rows
    return counts


def connect(folder: Path) -> Any:
    """A DuckDB connection in memory that holds the warehouse's tables."""
    import duckdb

    con = duckdb.connect(config={"threads": 1})  # one thread: rows and sums come in one order
    con.execute((folder / "schema.sql").read_text())
    for path in sorted(folder.glob("*.parquet")):
        con.execute(f"INSERT INTO {path.stem} SELECT * FROM read_parquet(?)", [str(path)])
    return con
