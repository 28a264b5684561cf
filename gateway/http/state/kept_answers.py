"""All routes of responses, conversations and stored chats."""

from collections.abc import Sequence

from fastapi import APIRouter

from gateway.http.state.arrivals import Arrivals
from gateway.http.state.conversations import (
    ProjectConversations,
    conversation_items_router,
    conversations_router,
)
from gateway.http.state.internal_responses import AnswersFromRouters, internal_responses_router
from gateway.http.state.responses import StoredResponses, responses_router
from gateway.http.state.stored_chats import stored_chats_router
from gateway.store.project_state import ProjectState


def kept_answers_routers(state: ProjectState) -> Sequence[APIRouter]:
    """The routes, which tell each other of new events."""
    arrivals = Arrivals()
    conversations = ProjectConversations(state)
    return (
        responses_router(StoredResponses(state, arrivals)),
        conversations_router(conversations),
        conversation_items_router(conversations),
        stored_chats_router(state),
        internal_responses_router(AnswersFromRouters(state, arrivals)),
    )
