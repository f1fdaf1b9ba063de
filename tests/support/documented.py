"""The sample answers of the provider's public pages."""

SMS: dict[str, object] = {
    "balance10000": 123456,
    "gift_balance10000": 20000,
    "balance": 12.3456,
    "gift_balance": 2,
    "total_balance10000": 143456,
    "total_balance": 14.3456,
}
OTP: dict[str, object] = {
    "currency": "USD",
    "balance": "123.4500",
    "gift_balance": "1.0000",
    "total_balance": "124.4500",
}
