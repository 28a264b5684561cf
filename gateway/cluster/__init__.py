"""The cluster as the planner sees it: placement, shortages, rollovers and the plan of a file."""
