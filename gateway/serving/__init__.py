"""One inference request, from its parsed body to its accounted answer."""
