"""The methods: frozen, keyword-only configurations made of cues, a selection and merging.

Every ablation is a field. ``METHODS`` is the one list: a further method is a file of its own and one entry there, with its
import. ``NAMES`` and ``make(name, **fields)`` follow from it, and so does ``rows()``, the table of what each paper says, what
its released code does and what happens here.
"""

from __future__ import annotations

from lib.pruning.adaptprune import AdaptPrune, FastV
from lib.pruning.base import Choice as Choice
from lib.pruning.base import Cues as Cues
from lib.pruning.base import Method
from lib.pruning.base import Needs as Needs
from lib.pruning.baselines import (
    Blind,
    CentreCrop,
    Downsample,
    NoPruning,
    Oracle,
    Pooling,
    Random,
    UniformGrid,
)
from lib.pruning.checks import check_option
from lib.pruning.desap import DeSAP
from lib.pruning.peers.cdpruner import CDPruner
from lib.pruning.peers.dart import Dart
from lib.pruning.peers.divprune import DivPrune
from lib.pruning.peers.fastervlm import ClsTopK
from lib.pruning.peers.holov import HoloV
from lib.pruning.peers.multicue import MultiCue
from lib.pruning.peers.pyramiddrop import PyramidDrop
from lib.pruning.peers.sparsevlm import SparseVLM
from lib.pruning.peers.tome import ToMe
from lib.pruning.peers.trim import Trim
from lib.pruning.peers.visionzip import VisionZip
from lib.pruning.peers.vispruner import VisPruner

METHODS: tuple[type[Method], ...] = (
    NoPruning,
    Random,
    UniformGrid,
    Blind,
    Oracle,
    CentreCrop,
    Pooling,
    Downsample,
    ClsTopK,
    FastV,
    DeSAP,
    AdaptPrune,
    VisionZip,
    VisPruner,
    Trim,
    DivPrune,
    CDPruner,
    HoloV,
    Dart,
    ToMe,
    PyramidDrop,
    SparseVLM,
    MultiCue,
)
_BY_NAME = {kind.name: kind for kind in METHODS}
NAMES: tuple[str, ...] = tuple(_BY_NAME)


def make(name: str, **fields: object) -> Method:
    """Build the method called ``name``; refuse an unknown name or field and a missing ``keep``."""
    check_option("name", name, NAMES)
    kind = _BY_NAME[name]
    known = kind.known_fields()
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(unknown)}; known: {', '.join(known)}")
    if "keep" not in fields and kind not in (NoPruning, Blind):
        raise ValueError(f"keep must be given for {name}: a count or a ratio")
    return kind(**fields)


def rows() -> list[dict[str, str]]:
    """One row a method: name, what the paper says, what the released code does, what happens here."""
    return [kind.describe() for kind in METHODS]
