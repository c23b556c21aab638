"""One page that reads and writes, with the session in the database."""

from django.db import transaction
from django.http import JsonResponse
from django.urls import path
from shop.models import Product


@transaction.atomic
def buy(request, sku):
    product = Product.objects.select_for_update().get(sku=sku)
    product.stock -= 1
    product.save()
    request.session["bought"] = request.session.get("bought", 0) + 1
    return JsonResponse({"stock": product.stock, "bought": request.session["bought"]})


urlpatterns = [path("buy/<str:sku>/", buy)]
