"""`gateway doctor`: facts about the nodes of a cluster, and what is wrong with them."""
