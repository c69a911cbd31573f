"""What the database keeps of nodes: that they exist, and what operators want of them.

Not promised: that a node is connected, or what it can do now. Redis holds what is live.
"""

from django.core.exceptions import ValidationError
from django.db import models

from registry.domain.errors import InvalidIdentifier
from registry.domain.ids import MAX_LENGTH, check_identifier


def validate_node_id(value: str) -> None:
    """Refuse what could not be part of a key."""
    try:
        check_identifier(value, what="node id")
    except InvalidIdentifier as error:
        raise ValidationError(str(error)) from None


class Node(models.Model):
    """A machine that takes work, known since it first registered."""

    node_id = models.CharField(
        "node", max_length=MAX_LENGTH, unique=True, validators=[validate_node_id]
    )
    enabled = models.BooleanField(
        default=True, help_text="Whether operators want this node to take work."
    )
    note = models.TextField(blank=True, help_text="For people: where it is, who to call.")
    first_seen_at = models.DateTimeField("first seen")
    last_registered_at = models.DateTimeField("last registered", db_index=True)
    platform = models.CharField(max_length=512, blank=True)
    version = models.CharField(max_length=512, blank=True)

    class Meta:
        ordering = ["node_id"]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(node_id=""),
                name="node_id_not_empty",
                violation_error_message="A node needs an id.",
            )
        ]

    def __str__(self) -> str:
        return self.node_id
