"""The sixteen operations of the support desk.

A change checks all its conditions before it writes, so a BusinessError always means that nothing changed.
Amounts are binary doubles and are rounded only where the shop's rules say so: the hash of the state depends
on every bit of them.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from examples.retail.store import BusinessError, JsonValue, Record, Store

CANCEL_REASONS = ("no longer needed", "ordered by mistake")
MOST_EXPRESSION_CHARACTERS = 300
DOUBLE_BITS = 1024


def find_user_id_by_email(store: Store, email: str) -> JsonValue:
    """Return the id of the user with the email, in whatever case it is written."""
    wanted = email.lower()
    user_id = store.find_user_id(lambda user: user["email"].lower() == wanted)
    if user_id is None:
        raise BusinessError(f"There is no user with the email {email!r}.")
    return user_id


def find_user_id_by_name_zip(store: Store, first_name: str, last_name: str, zip: str) -> JsonValue:
    """Return the id of the user with the name, in whatever case, and exactly the zip."""
    wanted = (first_name.lower(), last_name.lower(), zip)

    def matches(user: Record) -> bool:
        name = user["name"]
        return (name["first_name"].lower(), name["last_name"].lower(), user["address"]["zip"]) == wanted

    user_id = store.find_user_id(matches)
    if user_id is None:
        raise BusinessError(f"There is no user named {first_name} {last_name} with the zip {zip!r}.")
    return user_id


def get_user_details(store: Store, user_id: str) -> JsonValue:
    """Return the user's record."""
    return store.get_user(user_id)


def get_order_details(store: Store, order_id: str) -> JsonValue:
    """Return the order's record."""
    return store.get_order(order_id)


def get_product_details(store: Store, product_id: str) -> JsonValue:
    """Return the product's record with all its variants."""
    return store.get_product(product_id)


def list_all_product_types(store: Store) -> JsonValue:
    """Return the id of every product under its name, sorted by name."""
    return dict(sorted((str(product["name"]), product_id) for product_id, product in store.products()))


def calculate(store: Store, expression: str) -> JsonValue:
    """Return the value of an arithmetic expression rounded to two decimals; anything else is refused."""
    if len(expression) > MOST_EXPRESSION_CHARACTERS:
        raise BusinessError(f"The expression is longer than {MOST_EXPRESSION_CHARACTERS} characters.")
    if not re.fullmatch(r"[0-9+\-*/(). ]*", expression):
        raise BusinessError("The expression may hold only digits, + - * / ( ) . and spaces.")
    try:
        value = float(_value(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise BusinessError(f"The expression has no value: {error}.") from error
    if not math.isfinite(value):
        raise BusinessError("The expression has no finite value.")
    return round(value, 2)


def think(store: Store, thought: str) -> JsonValue:
    """Take note of a thought; nothing changes and nothing is answered."""
    return ""


def transfer_to_human_agents(store: Store, summary: str) -> JsonValue:
    """Hand the customer over to a person; the shop's records stay as they are."""
    return "Transfer successful"


def cancel_pending_order(store: Store, order_id: str, reason: str) -> JsonValue:
    """Cancel the order and refund each of its payments; gift cards get their money at once."""
    order = _order_with_status(store, order_id, "pending")
    if reason not in CANCEL_REASONS:
        raise BusinessError(f"The reason must be one of: {', '.join(CANCEL_REASONS)}.")
    user = store.get_user(order["user_id"])
    refunds = []
    for payment in order["payment_history"]:
        method_id, amount = payment["payment_method_id"], payment["amount"]
        refunds.append(_entry("refund", amount, method_id))
        if "gift_card" in method_id:
            _add_to_balance(user, method_id, amount)
    order["status"] = "cancelled"
    order["cancel_reason"] = reason
    order["payment_history"].extend(refunds)
    store.put_user(order["user_id"], user)
    store.put_order(order_id, order)
    return order


def modify_pending_order_address(
    store: Store, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> JsonValue:
    """Send the order to another address; the user's own address stays."""
    order = _order_with_status(store, order_id, "pending")
    order["address"] = _address(address1, address2, city, state, country, zip)
    store.put_order(order_id, order)
    return order


def modify_user_address(
    store: Store, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> JsonValue:
    """Replace the user's own address; orders already placed keep theirs."""
    user = store.get_user(user_id)
    user["address"] = _address(address1, address2, city, state, country, zip)
    store.put_user(user_id, user)
    return user


def modify_pending_order_payment(store: Store, order_id: str, payment_method_id: str) -> JsonValue:
    """Pay the order with another of the user's methods and refund the one that had paid it."""
    order = _order_with_status(store, order_id, "pending")
    user = store.get_user(order["user_id"])
    method = _method(user, payment_method_id)
    history = order["payment_history"]
    if len(history) != 1 or history[0]["transaction_type"] != "payment":
        raise BusinessError(f"Order {order_id} must have been paid exactly once, without a refund.")
    old_id, amount = history[0]["payment_method_id"], history[0]["amount"]
    if payment_method_id == old_id:
        raise BusinessError(f"Order {order_id} is already paid with {payment_method_id}.")
    _require_cover(method, amount)
    history.append(_entry("payment", amount, payment_method_id))
    history.append(_entry("refund", amount, old_id))
    if method["source"] == "gift_card":
        _add_to_balance(user, payment_method_id, -amount)
    if "gift_card" in old_id:
        _add_to_balance(user, old_id, amount)
    store.put_user(order["user_id"], user)
    store.put_order(order_id, order)
    return order


def modify_pending_order_items(
    store: Store, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> JsonValue:
    """Swap items of the order for other variants and settle the difference; it cannot be modified again."""
    order = _order_with_status(store, order_id, "pending")
    _require_items(order, item_ids)
    variants = _new_variants(store, order, item_ids, new_item_ids)
    difference = _price_difference(order, item_ids, variants)
    user = store.get_user(order["user_id"])
    method = _method(user, payment_method_id)
    _require_cover(method, difference)
    kind = "payment" if difference > 0 else "refund"
    order["payment_history"].append(_entry(kind, abs(difference), payment_method_id))
    if method["source"] == "gift_card":
        _add_to_balance(user, payment_method_id, -difference)
    for old_id, new_id, variant in zip(item_ids, new_item_ids, variants, strict=True):
        _item(order, old_id).update(item_id=new_id, price=variant["price"], options=variant["options"])
    order["status"] = "pending (item modified)"
    store.put_user(order["user_id"], user)
    store.put_order(order_id, order)
    return order


def return_delivered_order_items(store: Store, order_id: str, item_ids: list[str], payment_method_id: str) -> JsonValue:
    """Request the return of items; no money moves before they arrive."""
    order = _order_with_status(store, order_id, "delivered")
    _method(store.get_user(order["user_id"]), payment_method_id)
    paid_with = order["payment_history"][0]["payment_method_id"]
    if payment_method_id != paid_with and "gift_card" not in payment_method_id:
        raise BusinessError(f"The refund goes to {paid_with}, which paid the order, or to a gift card.")
    _require_items(order, item_ids)
    order["status"] = "return requested"
    order["return_items"] = sorted(item_ids)
    order["return_payment_method_id"] = payment_method_id
    store.put_order(order_id, order)
    return order


def exchange_delivered_order_items(
    store: Store, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> JsonValue:
    """Request the exchange of items for other variants; the difference is noted, no money moves yet."""
    order = _order_with_status(store, order_id, "delivered")
    _require_items(order, item_ids)
    variants = _new_variants(store, order, item_ids, new_item_ids)
    difference = round(_price_difference(order, item_ids, variants), 2)
    _require_cover(_method(store.get_user(order["user_id"]), payment_method_id), difference)
    order["status"] = "exchange requested"
    order["exchange_items"] = sorted(item_ids)
    order["exchange_new_items"] = sorted(new_item_ids)
    order["exchange_payment_method_id"] = payment_method_id
    order["exchange_price_difference"] = difference
    store.put_order(order_id, order)
    return order


OPERATIONS: dict[str, Callable[..., JsonValue]] = {
    "calculate": calculate,
    "cancel_pending_order": cancel_pending_order,
    "exchange_delivered_order_items": exchange_delivered_order_items,
    "find_user_id_by_email": find_user_id_by_email,
    "find_user_id_by_name_zip": find_user_id_by_name_zip,
    "get_order_details": get_order_details,
    "get_product_details": get_product_details,
    "get_user_details": get_user_details,
    "list_all_product_types": list_all_product_types,
    "modify_pending_order_address": modify_pending_order_address,
    "modify_pending_order_items": modify_pending_order_items,
    "modify_pending_order_payment": modify_pending_order_payment,
    "modify_user_address": modify_user_address,
    "return_delivered_order_items": return_delivered_order_items,
    "think": think,
    "transfer_to_human_agents": transfer_to_human_agents,
}
READS = frozenset(
    {
        "calculate",
        "find_user_id_by_email",
        "find_user_id_by_name_zip",
        "get_order_details",
        "get_product_details",
        "get_user_details",
        "list_all_product_types",
        "think",
        "transfer_to_human_agents",
    }
)
CHANGES = frozenset(OPERATIONS) - READS


def _order_with_status(store: Store, order_id: str, status: str) -> Record:
    order = store.get_order(order_id)
    if order["status"] != status:
        raise BusinessError(f"Order {order_id} is {order['status']}, not {status}.")
    return order


def _method(user: Record, method_id: str) -> Record:
    methods: dict[str, Record] = user["payment_methods"]
    if method_id not in methods:
        raise BusinessError(f"The user has no payment method {method_id!r}.")
    return methods[method_id]


def _require_cover(method: Record, amount: float) -> None:
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise BusinessError(f"The balance of {method['id']} does not cover {amount}.")


def _add_to_balance(user: Record, method_id: str, amount: float) -> None:
    method = _method(user, method_id)
    method["balance"] = round(method["balance"] + amount, 2)


def _item(order: Record, item_id: str) -> Record:
    """Return the first item with the id: an order may hold the same variant twice."""
    items: list[Record] = order["items"]
    return next(item for item in items if item["item_id"] == item_id)


def _require_items(order: Record, item_ids: list[str]) -> None:
    held = [item["item_id"] for item in order["items"]]
    for item_id in item_ids:
        count = held.count(item_id)
        if item_ids.count(item_id) > count:
            raise BusinessError(f"Order {order['order_id']} holds item {item_id!r} {count} times only.")


def _new_variants(store: Store, order: Record, item_ids: list[str], new_item_ids: list[str]) -> list[Record]:
    """Return the variant each new id stands for; a pair that is no legal swap is a business error."""
    if len(item_ids) != len(new_item_ids):
        raise BusinessError(f"{len(item_ids)} items cannot be replaced by {len(new_item_ids)}.")
    variants: list[Record] = []
    for old_id, new_id in zip(item_ids, new_item_ids, strict=True):
        product = store.get_product(_item(order, old_id)["product_id"])
        variant = product["variants"].get(new_id)
        if variant is None or not variant["available"]:
            raise BusinessError(f"Item {new_id!r} is not an available variant of {product['name']}.")
        variants.append(variant)
    return variants


def _price_difference(order: Record, item_ids: list[str], variants: list[Record]) -> float:
    """Add new price - old price for each pair in order; another order of the additions changes bits."""
    difference: float = 0
    for old_id, variant in zip(item_ids, variants, strict=True):
        difference += variant["price"] - _item(order, old_id)["price"]
    return difference


def _entry(kind: str, amount: float, method_id: str) -> Record:
    return {"transaction_type": kind, "amount": amount, "payment_method_id": method_id}


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Record:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "state": state,
        "country": country,
        "zip": zip,
    }


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _value(node: ast.expr) -> float:
    """Evaluate numbers, signs and the operators the permitted characters can spell; refuse all else."""
    match node:
        case ast.Constant(value=(int() | float()) as number):
            return number
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            result: float = _BINARY[type(op)](_value(left), _value(right))
            return result
    raise ValueError("it is not arithmetic")


def _power(base: float, exponent: float) -> float:
    # A few characters can ask for an integer that fills the memory. One refused here exceeds every double.
    if isinstance(base, int) and isinstance(exponent, int) and (base.bit_length() - 1) * exponent > DOUBLE_BITS:
        raise OverflowError("the power is too large")
    result: float | complex = base**exponent
    if isinstance(result, complex):
        raise ValueError("the power is not a real number")
    return result
