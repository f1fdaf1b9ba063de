"""Singer tap for prepaid EngageLab balances."""
