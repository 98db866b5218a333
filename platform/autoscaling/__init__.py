"""Numbers of replicas that follow load. ``decision`` is pure; ``load`` is what nodes report; ``actions`` look
and have the number changed by a deployment."""
