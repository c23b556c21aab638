"""A Django application against a database: migrations, ORM, transactions, locks, bulk operations, savepoints."""

import os
import sys
import threading
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from suite import case, expect, run_all, url

os.environ["DJANGO_DATABASE_URL"] = url()
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

import django

django.setup()

from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction
from django.db.models import Count, F, Prefetch, Q, Sum, Window
from django.db.models.functions import Rank, TruncDay
from django.test import Client
from shop.models import Item, Order, Product, Tag


@case
def migrations_apply_and_undo():
    call_command("migrate", verbosity=0)
    call_command("migrate", "shop", "zero", verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    assert "shop_product" in connection.introspection.table_names()


@case
def create_read_update_delete():
    product = Product.objects.create(sku="A-1", name="Oak chair", price=Decimal("99.90"), stock=5,
                                     attributes={"legs": 4, "deep": {"a": [1, 2]}}, colours=["red", "blue"])
    fetched = Product.objects.get(sku="A-1")
    assert (fetched.price, fetched.attributes["deep"]["a"], fetched.colours) == (Decimal("99.90"), [1, 2], ["red", "blue"])
    assert Product.objects.filter(pk=product.pk).update(stock=F("stock") + 1) == 1
    product.refresh_from_db()
    assert product.stock == 6
    assert Product.objects.get_or_create(sku="A-1", defaults={"name": "x", "price": 1})[1] is False
    assert Product.objects.update_or_create(sku="A-2", defaults={"name": "Lamp", "price": 20})[1] is True
    assert Product.objects.filter(sku="A-2").delete()[0] == 1


@case
def bulk_operations():
    Product.objects.bulk_create([Product(sku=f"B-{n}", name=f"Bulk {n}", price=n + 1, stock=n) for n in range(2000)],
                                batch_size=500)
    bulk = list(Product.objects.filter(sku__startswith="B-"))
    for product in bulk:
        product.stock += 1000
    assert Product.objects.bulk_update(bulk, ["stock"], batch_size=500) == 2000
    assert Product.objects.filter(sku__startswith="B-").aggregate(total=Sum("stock"))["total"] == 2000 * 1000 + 1999000
    Product.objects.bulk_create([Product(sku="B-1", name="again", price=1)], ignore_conflicts=True)
    Product.objects.bulk_create([Product(sku="B-1", name="renamed", price=1)], update_conflicts=True,
                                unique_fields=["sku"], update_fields=["name"])
    assert Product.objects.get(sku="B-1").name == "renamed"
    assert len(Product.objects.in_bulk([f"B-{n}" for n in range(100)], field_name="sku")) == 100


@case
def relations_and_queries():
    chairs, red = Tag.objects.create(name="chairs"), Tag.objects.create(name="red")
    products = [Product.objects.create(sku=f"R-{n}", name=f"Related {n}", price=10 * (n + 1), stock=9) for n in range(6)]
    for n, product in enumerate(products):
        product.tags.set([chairs, red] if n % 2 else [chairs])
    for n in range(4):
        order = Order.objects.create(customer=f"customer {n % 2}")
        order.items.create(product=products[n], quantity=n + 1)
        order.items.create(product=products[n + 1], quantity=1)
    assert Product.objects.filter(tags=chairs).filter(Q(tags=red) | Q(price__lt=15)).distinct().count() == 4
    totals = Order.objects.values("customer").annotate(n=Count("items"), sum=Sum(F("items__quantity"))).order_by("customer")
    assert [(t["n"], t["sum"]) for t in totals] == [(4, 6), (4, 8)], list(totals)
    orders = Order.objects.prefetch_related(Prefetch("items", Item.objects.select_related("product")))
    assert sum(item.product.price * item.quantity for order in orders for item in order.items.all()) == Decimal(440)
    ranked = Item.objects.annotate(rank=Window(Rank(), order_by=F("quantity").desc())).order_by("rank", "id")
    assert ranked[0].rank == 1 and ranked[0].quantity == 4
    assert Order.objects.annotate(day=TruncDay("placed_at")).values("day").distinct().count() == 1
    assert Product.objects.filter(attributes__legs=4, colours__contains=["red"]).count() == 1
    assert Order.objects.filter(pk__in=Item.objects.filter(quantity__gt=2).values("order")).count() == 2
    assert Product.objects.filter(sku__in=["R-0"]).union(Product.objects.filter(sku__in=["R-1"])).count() == 2
    assert "Index" in Product.objects.filter(sku="R-0").explain() or "Seq" in Product.objects.filter(sku="R-0").explain()


@case
def raw_sql_and_cursors():
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::int + 1, %s::text", [41, "100 %"])
        assert cursor.fetchone() == (42, "100 %")
        cursor.executemany("INSERT INTO shop_tag (name) VALUES (%s)", [(f"raw {n}",) for n in range(50)])
        cursor.execute("SELECT name FROM shop_tag WHERE name LIKE 'raw %%' ORDER BY id")
        assert len(cursor.fetchmany(10)) == 10 and len(cursor.fetchall()) == 40
    assert len(list(Product.objects.raw("SELECT * FROM shop_product WHERE sku = %s", ["B-1"]))) == 1


@case
def iterators_use_server_side_cursors():
    with transaction.atomic():
        assert sum(1 for _ in Product.objects.filter(sku__startswith="B-").iterator(chunk_size=100)) == 2000
    iterator = Product.objects.filter(sku__startswith="B-").order_by("id").iterator(chunk_size=50)
    first = [next(iterator).sku for _ in range(60)]  # WITH HOLD, since there is no transaction
    assert Product.objects.filter(sku=first[0]).count() == 1
    assert sum(1 for _ in iterator) == 2000 - 60


@case
def atomic_blocks_nest():
    with transaction.atomic():
        Tag.objects.create(name="outer")
        for _ in range(3):
            with expect(IntegrityError), transaction.atomic():
                Tag.objects.create(name="outer")
        with expect(ZeroDivisionError), transaction.atomic():
            Tag.objects.create(name="inner")
            raise ZeroDivisionError
        Tag.objects.create(name="outer 2")
    assert set(Tag.objects.filter(name__in=["outer", "inner", "outer 2"]).values_list("name", flat=True)) == {"outer", "outer 2"}
    with expect(IntegrityError), transaction.atomic():
        Product.objects.filter(sku="A-1").update(stock=-1)
    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append(1))
        assert not done
    assert done == [1]


@case
def a_broken_transaction_says_so():
    with expect(transaction.TransactionManagementError), transaction.atomic():
        try:
            Tag.objects.create(name="outer")
        except IntegrityError:
            pass
        Tag.objects.count()
    assert Tag.objects.count() > 0


@case
def explicit_savepoints():
    with transaction.atomic():
        savepoint = transaction.savepoint()
        Tag.objects.create(name="undone")
        transaction.savepoint_rollback(savepoint)
        savepoint = transaction.savepoint()
        Tag.objects.create(name="kept")
        transaction.savepoint_commit(savepoint)
    assert list(Tag.objects.filter(name__in=["undone", "kept"]).values_list("name", flat=True)) == ["kept"]


@case
def select_for_update_locks():
    Product.objects.create(sku="L-1", name="locked", price=1, stock=0)
    errors = []

    def count_up():
        try:
            for _ in range(10):
                with transaction.atomic():
                    product = Product.objects.select_for_update().get(sku="L-1")
                    product.stock += 1
                    product.save()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=count_up) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not errors, errors
    assert Product.objects.get(sku="L-1").stock == 120


@case
def nowait_and_skip_locked():
    held, release, outcome = threading.Event(), threading.Event(), []

    def hold():
        with transaction.atomic():
            Product.objects.select_for_update().get(sku="L-1")
            held.set()
            release.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(20)
        with expect(OperationalError), transaction.atomic():
            Product.objects.select_for_update(nowait=True).get(sku="L-1")
        with transaction.atomic():
            outcome = list(Product.objects.select_for_update(skip_locked=True).filter(sku="L-1"))
    finally:
        release.set()
        holder.join(20)
    assert outcome == []


@case
def requests_with_sessions():
    client = Client()
    Product.objects.create(sku="W-1", name="web", price=1, stock=10)
    for n in range(1, 6):
        answer = client.get("/buy/W-1/").json()
        assert answer == {"stock": 10 - n, "bought": n}, answer
    Product.objects.filter(sku="W-1").update(stock=0)
    with expect(IntegrityError):
        client.get("/buy/W-1/")
    assert Product.objects.get(sku="W-1").stock == 0


@case
def users_and_permissions():
    from django.contrib.auth import authenticate
    from django.contrib.auth.models import Group, Permission, User

    user = User.objects.create_user("ada", password="secret", email="ada@example.com")
    group = Group.objects.create(name="sellers")
    group.permissions.add(Permission.objects.get(codename="change_product"))
    user.groups.add(group)
    with_settings = authenticate(username="ada", password="secret")
    assert with_settings is not None and with_settings.has_perm("shop.change_product")
    assert authenticate(username="ada", password="wrong") is None


@case
def time_zones_and_connection_reuse():
    for zone in ("UTC", "Asia/Tokyo", "UTC"):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('TimeZone', %s, false)", [zone])
            cursor.execute("SHOW timezone")
            assert cursor.fetchone() == (zone,)
    connection.close()
    assert Product.objects.exists()
    connection.close_if_unusable_or_obsolete()
    assert connection.is_usable()


@case
def schema_editor_in_a_transaction():
    from django.db import models

    with expect(ZeroDivisionError), transaction.atomic():
        with connection.schema_editor() as editor:
            field = models.IntegerField(null=True)
            field.set_attributes_from_name("extra")
            editor.add_field(Tag, field)
        raise ZeroDivisionError
    with expect(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT extra FROM shop_tag")
    assert Tag.objects.count() > 0


@case
def dump_and_flush():
    from io import StringIO

    out = StringIO()
    call_command("dumpdata", "shop.tag", stdout=out)
    assert '"shop.tag"' in out.getvalue()
    call_command("flush", interactive=False, verbosity=0)
    assert Product.objects.count() == 0


run_all(lambda function: function())
