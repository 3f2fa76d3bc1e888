"""Storing the rows of ``Seeded`` entities. Imported only if a database has such entities.

From the top down: :mod:`seeder` decides what is due and applies it. :mod:`source` reads rows and takes fingerprints.
:mod:`ledger` remembers which rows were applied. :mod:`order` puts entities before those that refer to them.
:mod:`prepare`, :mod:`keys` and :mod:`values` turn rows into parameters, kept in :mod:`prepared`. :mod:`write`,
:mod:`links` and :mod:`mirror` write them, and :mod:`readback` checks what is stored.
"""
