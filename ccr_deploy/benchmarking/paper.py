"""The figures of the paper, as they are printed.

Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression, Restoration, and Recognition
Framework", Chubu University.
"""

from __future__ import annotations

from ccr_deploy.benchmarking.table1_results import PaperRow

PAPER_TABLE_1 = {
    row.model: row
    for row in (
        PaperRow("ccr-baseline", 42.8, None, 20_293_224, 64.94),
        PaperRow("ccr-layer1", 23.8, 43, 14_867_364, 66.40),
        PaperRow("ccr-layer2", 11.4, 74, 14_581_796, 65.14),
        PaperRow("ccr-layer3", 9.0, 79, 13_404_452, 54.16),
    )
}
"""Table 1 by preset: time of one image in ms on its GPU, reduction in %, parameters, top-1 in %.

The printed reductions are not exactly those of the printed times, which are 44.4, 73.4 and 79.0 %.
"""
