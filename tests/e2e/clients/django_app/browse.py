"""A shop that is browsed by many while it is written: what the ORM sends, and whether anything that it is told is old.

browse.py URL [SECONDS] [--table]; with `--fill` it only makes the tables and fills them, with `--filled` they are there.

Each reader looks, before it asks, at what has been acknowledged to whoever wrote it: an answer may be newer, never older. Two
rows that are written together must be read together. The last lines say how many pages were read and how many rows were old;
`--table` adds each statement, and what `SHOW tidegate.cache` said after it.
"""

import os
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from suite import url

os.environ["DJANGO_DATABASE_URL"] = url()
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
NUMBERS = [word for word in sys.argv[2:] if word.isdigit()]
SECONDS = int(NUMBERS[0]) if NUMBERS else 4
TABLE = "--table" in sys.argv

import django

django.setup()

from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import Count, F, Sum
from shop.models import Item, Order, Product, Tag

PAIRS = 5
READERS = 6
WRITERS = 2

acknowledged = defaultdict(int)
lock = threading.Lock()
old, pages, told = Counter(), Counter(), defaultdict(Counter)


def fill():
    call_command("migrate", verbosity=0)
    tags = [Tag.objects.create(name=f"tag {n}") for n in range(4)]
    for n in range(PAIRS):
        for side in ("left", "right"):
            product = Product.objects.create(sku=f"{side}-{n}", name=f"Product {n}", price=Decimal(1), stock=0)
            product.tags.set(tags[: n % 4 + 1])
    for n in range(10):
        order = Order.objects.create(customer=f"customer {n % 3}")
        order.items.create(product=Product.objects.get(sku=f"left-{n % PAIRS}"), quantity=n + 1)
    user = User.objects.create_user("ada", password="secret")
    user.groups.add(Group.objects.create(name="sellers"))
    session = SessionStore()
    session["cart"] = [1, 2, 3]
    session.save()


def check(kind, number, floor, seen):
    if seen < floor:
        with lock:
            old[kind] += 1
            print(f"OLD {kind} {number}: {seen} was read after {floor} had been acknowledged", flush=True)


def detail(number):
    floor = acknowledged[number]
    product = Product.objects.get(sku=f"left-{number}")
    check("detail", number, floor, product.stock)
    assert [tag.name for tag in product.tags.order_by("id")] == [f"tag {n}" for n in range(number % 4 + 1)]


def listing(_):
    floors = dict(acknowledged)
    products = Product.objects.filter(sku__startswith="left-").prefetch_related("tags").order_by("sku")[:20]
    for product in products:
        number = int(product.sku.split("-")[1])
        check("listing", number, floors.get(number, 0), product.stock)


def pair(number):
    floor = acknowledged[number]
    left, right = Product.objects.filter(sku__in=[f"left-{number}", f"right-{number}"]).order_by("sku")
    check("pair", number, floor, left.stock)
    if left.stock != right.stock:
        with lock:
            old["torn"] += 1
            print(f"TORN {number}: {left.stock} beside {right.stock}", flush=True)


def totals(_):
    floor = sum(dict(acknowledged).values())
    check("totals", "all", 2 * floor, Product.objects.aggregate(total=Sum("stock"))["total"])
    list(Order.objects.values("customer").annotate(n=Count("items"), sum=Sum(F("items__quantity"))).order_by("customer"))


def history(number):
    items = Item.objects.filter(product__sku=f"left-{number}").select_related("product", "order")
    floor = acknowledged[number]
    for item in items:
        check("history", number, floor, item.product.stock)


def visitor(_):
    # The session's statement has the time of day in it.
    assert SessionStore(session_key=SESSION).get("cart") == [1, 2, 3]
    user = User.objects.get(pk=USER)
    assert user.has_perm("shop.change_product") is False


def write(number):
    with transaction.atomic():
        left = Product.objects.select_for_update().get(sku=f"left-{number}")
        stock = left.stock + 1
        left.stock = stock
        left.save()
        Product.objects.filter(sku=f"right-{number}").update(stock=stock)
    with lock:
        acknowledged[number] = max(acknowledged[number], stock)
    assert Product.objects.get(sku=f"left-{number}").stock >= stock


def telling(execute, sql, params, many, context):
    """Asks after each statement what the cache had to do with it."""
    result = execute(sql, params, many, context)
    if not connection.in_atomic_block and connection.get_autocommit():
        with connection.connection.cursor() as cursor:
            cursor.execute("SHOW tidegate.cache")
            said = cursor.fetchone()[0]
        with lock:
            told[sql][said] += 1
    return result


def look(choose):
    page = choose.choice([detail, detail, detail, listing, pair, totals, history, visitor])
    if TABLE:
        with connection.execute_wrapper(telling):
            page(choose.randrange(PAIRS))
    else:
        page(choose.randrange(PAIRS))
    return page.__name__


def buy(choose):
    write(choose.randrange(PAIRS))
    time.sleep(choose.random() / 10)  # people look more often than they buy
    return "write"


def visit(act, seed, until):
    choose = random.Random(seed)
    try:
        while time.monotonic() < until:
            name = act(choose)
            with lock:
                pages[name] += 1
    except Exception as error:
        with lock:
            old["error"] += 1
            print(f"ERROR {error!r}", flush=True)
    finally:
        connections.close_all()


if "--filled" not in sys.argv:
    fill()
if "--fill" in sys.argv:
    sys.exit(0)
USER, SESSION = User.objects.get().pk, Session.objects.get().pk
end = time.monotonic() + SECONDS
threads = [threading.Thread(target=visit, args=(look, n, end)) for n in range(READERS)]
threads += [threading.Thread(target=visit, args=(buy, 100 + n, end)) for n in range(WRITERS)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for sql, words in sorted(told.items(), key=lambda entry: -sum(entry[1].values())):
    print(sum(words.values()), dict(words.most_common(4)), sql[:400], flush=True)
print("pages", dict(pages))
print("old", dict(old))
sys.exit(1 if old or not pages["write"] else 0)
