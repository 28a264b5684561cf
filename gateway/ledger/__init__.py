"""What requests took of the engines, and what that costs: plain rows, sums and prices."""
