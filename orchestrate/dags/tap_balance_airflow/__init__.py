"""Two Airflow DAGs: snapshots of prepaid balances, and the alerts that follow from them."""
