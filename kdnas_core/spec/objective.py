"""What students are for, what they learn by, and what they are judged by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from kdnas_core.spec.base import Strict

Mapping = Literal["uniform+last", "uniform", "last", "top", "bottom", "skip", "final"]
# by a rule, or a teacher layer for each student layer
Layers = Mapping | Annotated[list[Annotated[int, Field(ge=0, le=48)] | None], Field(min_length=1)]
StartLayers = (
    Literal["uniform", "last", "top", "bottom"]
    | Annotated[list[Annotated[int, Field(ge=1, le=48)]], Field(min_length=1)]
)
TermKind = Literal[
    "embedding",
    "hidden",
    "cosine",
    "patience",
    "feature_map",
    "vector",
    "vector_mse",
    "similarity",
    "contrastive",
    "attention",
    "attention_kl",
    "attention_transfer",
    "value_relation",
    "relations",
    "prediction",
    "prediction_kl",
    "masked_lm",
]
Recipe = Literal[
    "vectors",
    "embedding",
    "similarity",
    "contrastive",
    "kdnas",
    "tinybert",
    "distilbert",
    "pkd",
    "pd",
    "minilm",
    "minilmv2",
    "mobilebert",
    "custom",
]
Use = Literal["vectors", "fine_tuning"]
Yardstick = Literal["vectors", "last_layer", "layers"]
USUAL_RELATION_HEADS = 12
LOGITS: tuple[TermKind, ...] = ("prediction", "prediction_kl")
SOFTENED: tuple[TermKind, ...] = (*LOGITS, "contrastive")
WORDS: tuple[TermKind, ...] = (*LOGITS, "masked_lm")
# head by head, which needs a student with as many heads as its teacher
SAME_HEADS: tuple[TermKind, ...] = ("attention", "attention_kl", "attention_transfer", "value_relation")
_SAME_HEADS_RECIPES: tuple[Recipe, ...] = ("tinybert", "minilm", "mobilebert")
WITHOUT_MAPPING: tuple[TermKind, ...] = ("embedding", *WORDS)  # they have one place each


class TermSpec(Strict):
    """One loss term of an objective composed freely.

    Attributes:
        kind: which loss.
        weight: its factor in the sum of all terms.
        mapping: which teacher layers each student layer learns from; for terms of layers only. Left out:
            that of the objective.
        temperature: divides the logits, or the cosines of `contrastive`; for `prediction`, `prediction_kl`
            and `contrastive` only.
        relation_heads: into which queries, keys and values are cut anew; for `relations` only.
        stage: in which of the two stages it is trained.
        progressive: whether its layers are trained one after another, each for an equal share of the stage.
    """

    kind: TermKind
    weight: float = Field(default=1.0, gt=0, le=1e6)
    mapping: Layers | None = None
    temperature: float = Field(default=1.0, gt=0, le=100)
    relation_heads: int = Field(default=USUAL_RELATION_HEADS, ge=1, le=1_024)
    stage: Literal[1, 2] = 1
    progressive: bool = False

    @model_validator(mode="after")
    def _only_what_the_kind_uses(self) -> TermSpec:
        unused = {
            "temperature": self.temperature != 1 and self.kind not in SOFTENED,
            "relation_heads": self.relation_heads != USUAL_RELATION_HEADS and self.kind != "relations",
            "mapping": self.mapping is not None and self.kind in WITHOUT_MAPPING,
        }
        if names := [name for name, is_unused in unused.items() if is_unused]:
            raise ValueError(f"a term of the kind {self.kind!r} has no {names[0]}, leave that out")
        return self


class ObjectiveSpec(Strict):
    """What a student is for, what it learns, and where it starts.

    Attributes:
        use: what students are for: their sentence vectors, or to be fine-tuned on tasks. Left out: vectors
            where the teacher is made for them, else fine-tuning. Yardstick, recipe and the share of pairs
            follow from it where they are left out.
        yardstick: what all students of a run are compared by on held-out text: the agreement of their
            sentence vectors with the teacher's, the error of their last hidden states, or the mean error of
            their hidden states over layers, by which the first versions judged all.
        recipe: an objective by name, or "custom" for one's own `terms`.
        mapping: which teacher layers each student layer learns from, where it is not to be the recipe's own.
        projection: one for each layer, or one shared by all.
        start: weights cut out of the teacher, copied where the shapes agree; cut out of a supernet, which is
            the teacher after a training for all shapes of the space; or random ones.
        start_layers: the teacher layer that each student layer is cut from; left out, the recipe's own.
        head: whose masked-LM head predicts words: the teacher's own, or, where it has none, one trained for
            it on the proxy set.
        first_stage: share of the steps for the first stage, where there are two.
        terms: of a "custom" objective.
    """

    use: Use | None = None
    yardstick: Yardstick | None = None
    recipe: Recipe | None = None
    mapping: Layers | None = None
    projection: Literal["per_layer", "shared"] = "per_layer"
    start: Literal["teacher", "supernet", "random"] = "teacher"
    start_layers: StartLayers | None = None
    head: Literal["teacher", "trained"] = "teacher"
    first_stage: float = Field(default=0.5, gt=0, lt=1)
    terms: list[TermSpec] = Field(default=[])

    @property
    def compares_heads(self) -> bool:
        """Whether a term compares student and teacher head by head."""
        return self.recipe in _SAME_HEADS_RECIPES or any(term.kind in SAME_HEADS for term in self.terms)

    def filled_for(self, makes_vectors: bool) -> ObjectiveSpec:
        """This objective with what was left out as it is usual.

        Args:
            makes_vectors: whether the teacher is made for sentence vectors.
        """
        use = self.use or ("vectors" if makes_vectors else "fine_tuning")
        yardstick, recipe = USUAL_OBJECTIVES[use]
        return self.model_copy(
            update={
                "use": use,
                "yardstick": self.yardstick or yardstick,
                "recipe": self.recipe or recipe,
            }
        )

    @model_validator(mode="after")
    def _terms_where_custom(self) -> ObjectiveSpec:
        if self.recipe == "custom" and not self.terms:
            raise ValueError("a custom objective needs terms, list at least one")
        if self.recipe != "custom" and self.terms:
            raise ValueError("terms belong to the recipe 'custom', set that or leave the list empty")
        return self


# by benchmarks.yardstick: what ranks students as their scores do
USUAL_OBJECTIVES: dict[Use, tuple[Yardstick, Recipe]] = {
    "vectors": ("vectors", "vectors"),
    "fine_tuning": ("layers", "kdnas"),  # of those tried nothing ranks fine-tuned scores better so far
}
USUAL_PAIRS: dict[Use, float] = {"vectors": 0.0, "fine_tuning": 0.5}
