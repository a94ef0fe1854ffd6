"""Churn's Feast definitions, as its declaration says.

The module is not named `churn`: Feast imports it by its file's name, which is then the package's.
"""

from __future__ import annotations

from churn.project import PROJECT
from espalier.features.feast_store import definitions

_DEFINITIONS = definitions(PROJECT)
# Feast registers the objects that it finds among a module's attributes.
entity, source, view = _DEFINITIONS.entity, _DEFINITIONS.source, _DEFINITIONS.view
