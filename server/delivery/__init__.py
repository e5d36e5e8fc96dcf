"""Delivery to subscriptions: what is sent next, what is sent again, and the progress that is replicated."""
