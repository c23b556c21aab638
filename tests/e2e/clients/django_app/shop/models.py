"""A shop: enough to use most kinds of fields and relations."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Tag(models.Model):
    name = models.CharField(max_length=40, unique=True)


class Product(models.Model):
    sku = models.CharField(max_length=20, unique=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.IntegerField(default=0)
    attributes = models.JSONField(default=dict)
    colours = ArrayField(models.TextField(), default=list)
    tags = models.ManyToManyField(Tag, related_name="products")

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(stock__gte=0), name="stock_not_negative")]
        indexes = [models.Index(fields=["name"])]


class Order(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.TextField()
    placed_at = models.DateTimeField(auto_now_add=True)


class Item(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="items")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField()
