"""Storing the rows that entities bring. Imported only where a database has such entities.

From the top down: :mod:`seeder` says what is due and applies it; :mod:`source` gives rows and fingerprints,
:mod:`ledger` keeps those that were applied; :mod:`order` puts entities before those that refer to them; :mod:`convert`
turns rows into the values that Pony would store; :mod:`write`, :mod:`links` and :mod:`mirror` bring the tables there.
"""
