"""Sentences of several lengths and scripts, on which ways of using one student are compared."""

from __future__ import annotations

_LONG = (
    "When the budget is moved, the pick is computed again from what was measured, and nothing is run anew; "
    "what was measured once on a machine, under a protocol that is written beside it, is remembered there. "
)
SENTENCES: tuple[str, ...] = (
    "Yes.",
    "A student reads a sentence.",
    "How fast is it, and on which machine was that measured?",
    "The teacher has six layers; its student has three, half as wide, and is eight times as fast.",
    "prices rose by 3.5 % in 2024, to $1,250.00 (see table 7)",
    "Latency is what a user waits for: not the sum of what a profiler saw.",
    "Ein kurzer Satz mit Umlauten: schöne Grüße aus Köln.",
    "知识蒸馏让小模型学习大模型。",
    "مرحبا بالعالم",
    "C'est en forgeant qu'on devient forgeron 🔨🙂",
    "def forward(self, x): return self.dense(x)",
    "the the the the the the the the the the the the",
    _LONG,
    _LONG * 3,
    "unbelievablylongwordthatnobodyhaseverwritten" * 3,
    "Last, a sentence that ends the batch.",
)
