"""Writes the layers of a table for the page energyestimation.mit.edu, without latencies (profiler.modelled.energy_page).

Such files are read by `profile predict` with a table of an accelerator.
"""

from __future__ import annotations

from profiler.exchange.writer import ExportedTable
from profiler.layers.layer import ITEM_BYTES
from profiler.modelled.energy_page import page_layer, write_page
from profiler.modelled.work import Assumptions
from profiler.tables.table import Table


def write(table: Table) -> ExportedTable:
    """The layers with weights, each once; zeros and batch as the table's model assumes them, and no zeros for a measured table."""
    written, exported = [], ExportedTable()
    for layer in table.rows:
        model = table.info.model
        assumptions = Assumptions(bits=8 * ITEM_BYTES.get(layer.dtype, 4)) if model is None else model.assumed(layer)
        found = page_layer(layer, assumptions)
        if found is None:
            exported.leave_out("layers that are no plain convolution or matrix product")
        else:
            written.append(found)
    exported.text, exported.written = write_page(written), len(written)
    exported.notes.append("the layers of the table, each once: a network that has one several times needs its line as often")
    exported.notes.append("without activations, biases and latencies")
    if table.info.model is not None and table.info.model.densities is not None:
        exported.notes.append("without the zeros of single layers, as the layers of a table do not know their place in the network")
    return exported
