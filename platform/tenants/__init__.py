"""Organisations: members and roles, tokens, plans, audit, encryption keys."""
