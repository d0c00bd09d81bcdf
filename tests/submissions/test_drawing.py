"""Pictures keep nobody who asks for something else waiting."""

from contextlib import ExitStack

from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.drawing import MOST_WAITING, places
from tests.submissions.factories import DEMO, add_evaluation


def test_where_many_wait_for_pictures_one_more_is_told_to_come_again(client: TestClient, hub: Hub) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/m", values=DEMO)
    kept, new = "/pictures/size.svg?suite=demo", "/pictures/size.svg?suite=demo&q=acme&theme=dark"
    assert client.get(kept).status_code == 200
    with ExitStack() as taken:
        for _ in range(MOST_WAITING):
            taken.enter_context(places.taken())
        refused = client.get(new)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert client.get(kept).status_code == 200
    assert client.get(new).status_code == 200
