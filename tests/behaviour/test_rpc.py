"""Calls of functions that sessions serve: each is answered once, and in bounded time."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from service import Service, check
from wsclient import Message, WSClient, frame

#: An answer of the server's own, or one that it passes on, is there within so long, seconds.
SOON = 5.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("rpc")
    started = Service(directory, "-t", "srv", "--rpc-timeout", "1")
    yield started
    assert started.end()[0] == 0
    check(directory, "srv")


@pytest.fixture
def owner(service: Service) -> Iterator[WSClient]:
    with WSClient(service.port, "owner.1") as client:
        client.put("f", "%owner.1.run", ephemeral=True)
        yield client
    gone(service, "owner.1")


@pytest.fixture
def caller(service: Service) -> Iterator[WSClient]:
    with WSClient(service.port, "caller", timeout=SOON) as client:
        yield client
    gone(service, "caller")


def gone(service: Service, tega_id: str) -> None:
    """Wait until a session has ended."""
    until = time.monotonic() + SOON
    while tega_id in service.ask("GET", "/_ids")[1]:
        assert time.monotonic() < until
    # Its nodes have gone when a later change is there.
    assert service.ask("PUT", "/later/", 0)[0] == 200


def call(caller: WSClient, body: Any = None, path: str = "f") -> int:
    return caller.request("RPC", path, {} if body is None else body)


def asked(owner: WSClient) -> Message:
    """The next call that reaches an owner."""
    found = owner.receive()
    assert found.command == "REQUEST", found
    return found


def answer(owner: WSClient, request: Message, body: str, *, error: bool = False) -> None:
    _, number, kind, caller, _ = request.words
    owner.send(f"RESPONSE {number} {kind} {caller}{' ERROR' if error else ''}\n{body}")


def code_of(caller: WSClient, number: int) -> str:
    """The code of the error that a call gets."""
    found = caller.response(number)
    assert found.words[-1] == "ERROR", found
    code: str = found.body["code"]
    assert found.body["message"]
    return code


# -- results --------------------------------------------------------------------------------------

RESULTS = [
    "null", "0", "false", '""', "[]", "{}", "0.0", "1", "-1e300", '"text"', '[null,{"_x":[]}]',
    "123456789012345678901234567890", '"\\u0000\\u2028 日本"', '{"error":{"code":"x"}}',
]  # fmt: skip


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_arrives_as_itself(owner: WSClient, caller: WSClient, result: str) -> None:
    number = call(caller)
    answer(owner, asked(owner), result)
    found = caller.response(number)
    assert found.words == ["RESPONSE", str(number), "RPC", "caller"]
    assert repr(found.body) == repr(json.loads(result))


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_arrives_as_itself_by_rest(
    service: Service, owner: WSClient, result: str
) -> None:
    serving = threading.Thread(target=lambda: answer(owner, asked(owner), result))
    serving.start()
    status, found = service.ask("POST", "/_rpc?path=f&tega_id=rest", {})
    serving.join()
    assert (status, repr(found)) == (200, repr({"result": json.loads(result)}))


def test_a_request_says_who_calls_what_with_what(owner: WSClient, caller: WSClient) -> None:
    owner.put('deep."10.0.0.0/24"."two words"', "%owner.1.run", ephemeral=True)
    body = {"args": [1, None, {"_a": 0}], "kwargs": {"x y": False}}
    number = call(caller, body, 'deep."10.0.0.0/24"."two\\u0020words"')
    request = asked(owner)
    assert request.words[2:] == ["RPC", "caller", 'deep."10.0.0.0/24"."two\\u0020words"']
    assert request.body == body
    answer(owner, request, "1")
    assert caller.response(number).body == 1


@pytest.mark.parametrize("body", [{}, {"args": None, "kwargs": None}, {"args": []}])
def test_arguments_may_be_left_out(owner: WSClient, caller: WSClient, body: Any) -> None:
    number = call(caller, body)
    request = asked(owner)
    assert not request.body.get("args")
    assert not request.body.get("kwargs")
    answer(owner, request, "1")
    assert caller.response(number).body == 1


def test_only_the_owner_gets_the_request(
    service: Service, owner: WSClient, caller: WSClient
) -> None:
    with WSClient(service.port, "ear") as ear:
        for text, regex in [("owner.1", False), (".*", True), (r".*\..*", True), ("f", False)]:
            ear.subscribe(text, regex)
            owner.subscribe(text, regex)
        number = call(caller)
        request = asked(owner)
        answer(owner, request, "1")
        assert caller.response(number).body == 1
        assert owner.notices() == [], "once, however many subscriptions it has"
        assert ear.notices() == []


def test_an_owner_may_call_itself(owner: WSClient) -> None:
    number = owner.request("RPC", "f", {"args": [7]})
    request = asked(owner)
    assert request.words[3] == "owner.1"
    answer(owner, request, '"itself"')
    assert owner.response(number).body == "itself"


def test_sixty_four_calls_answered_out_of_order(owner: WSClient, caller: WSClient) -> None:
    numbers = [call(caller, {"args": [n]}) for n in range(64)]
    requests = [asked(owner) for _ in numbers]
    assert [request.body["args"] for request in requests] == [[n] for n in range(64)]
    assert len({request.words[1] for request in requests}) == 64
    random.Random(1).shuffle(requests)
    for request in requests:
        answer(owner, request, json.dumps(request.body["args"][0] * 2))
    for n, number in reversed(list(enumerate(numbers))):
        assert caller.response(number).body == 2 * n


def test_two_callers_with_the_same_numbers(service: Service, owner: WSClient) -> None:
    with WSClient(service.port, "c1") as first, WSClient(service.port, "c2") as second:
        numbers = [call(first, {"args": ["first"]}), call(second, {"args": ["second"]})]
        assert numbers == [1, 1]
        for _ in numbers:
            request = asked(owner)
            answer(owner, request, json.dumps([request.words[3], *request.body["args"]]))
        assert first.response(1).body == ["c1", "first"]
        assert second.response(1).body == ["c2", "second"]


# -- errors ---------------------------------------------------------------------------------------


def test_the_owner_raises(service: Service, owner: WSClient, caller: WSClient) -> None:
    number = call(caller)
    answer(owner, asked(owner), '{"code":"call_failed","message":"it broke","line":7}', error=True)
    found = caller.response(number)
    assert found.words[-1] == "ERROR"
    assert found.body == {
        "code": "call_failed", "message": "it broke", "line": 7, "owner": "owner.1"
    }  # fmt: skip
    error = '{"code":"call_failed","message":"it broke"}'
    serving = threading.Thread(target=lambda: answer(owner, asked(owner), error, error=True))
    serving.start()
    status, found_by_rest = service.ask("POST", "/_rpc?path=f", {})
    serving.join()
    assert (status, found_by_rest["error"]["message"]) == (502, "it broke")


@pytest.mark.parametrize(
    "body",
    [
        "null", "1", "[]", "{}", '{"code":1,"message":2}', '{"message":null}',
        '{"code":"internal","message":"not its own"}', '{"code":"collision","message":"nor this"}',
        '{"code":"x","message":"m","self":1}', '{"code":"x","message":"m","owner":"somebody"}',
        '{"code":"x","message":"m","args":[],"details":{},"cls":0,"status":200}',
        '{"code":"x","message":"' + "x" * 100_000 + '"}',
    ],
    ids=lambda body: body[:40],
)  # fmt: skip
def test_whatever_the_error_is_the_caller_gets_one(
    owner: WSClient, caller: WSClient, body: str
) -> None:
    number = call(caller)
    answer(owner, asked(owner), body, error=True)
    found = caller.response(number)
    assert found.words[-1] == "ERROR"
    assert found.body["code"] == "call_failed"
    assert found.body["owner"] == "owner.1"
    assert owner.notices() == [], "the owner has done nothing wrong"


@pytest.mark.parametrize(
    "body", ["", "{", "nope", "NaN", "[" * 100_000, '"\\ud800"', '{"a":1,"a":2}']
)
@pytest.mark.parametrize("error", [False, True])
def test_an_answer_that_is_no_json(
    owner: WSClient, caller: WSClient, body: str, error: bool
) -> None:
    number = call(caller)
    answer(owner, asked(owner), body, error=error)
    assert code_of(caller, number) == "call_failed"
    [told] = owner.notices()
    assert told.words == ["ERROR", "malformed"]


def test_an_owner_that_never_answers(service: Service, owner: WSClient, caller: WSClient) -> None:
    numbers = [call(caller) for _ in range(3)]
    requests = [asked(owner) for _ in numbers]
    assert [code_of(caller, number) for number in numbers] == ["call_timeout"] * 3
    answer(owner, requests[0], "1")
    assert owner.receive().words == ["ERROR", "not_understood"], "too late"
    caller.settle()
    assert caller.notices() == []
    number = call(caller)
    answer(owner, asked(owner), '"again"')
    assert caller.response(number).body == "again"
    status, found = service.ask("POST", "/_rpc?path=f", {})
    assert (status, found["error"]["code"]) == (504, "call_timeout")


def test_an_answer_to_what_was_not_asked(owner: WSClient, caller: WSClient) -> None:
    number = call(caller)
    request = asked(owner)
    for text in ("RESPONSE 999 RPC caller\n1", f"RESPONSE {request.words[1]} TX caller\n1"):
        owner.send(text)
        assert owner.receive().words == ["ERROR", "not_understood"]
    answer(owner, request, "1")
    answer(owner, request, "2")
    assert caller.response(number).body == 1
    assert owner.receive().words == ["ERROR", "not_understood"], "it has its answer"


def test_somebody_else_cannot_answer(service: Service, owner: WSClient, caller: WSClient) -> None:
    number = call(caller)
    request = asked(owner)
    with WSClient(service.port, "somebody") as somebody:
        answer(somebody, request, '"forged"')
        assert somebody.receive().words == ["ERROR", "not_understood"]
    answer(owner, request, '"true"')
    assert caller.response(number).body == "true"


@pytest.mark.parametrize(
    ("leaf", "body", "code"),
    [
        (None, {}, "no_such_function"),
        ("no function", {}, "no_such_function"),
        (7, {}, "no_such_function"),
        ({"a": "%owner.1.run"}, {}, "no_such_function"),
        ("%nobody.f", {}, "owner_gone"),
        ("%nobody.f(1)", {}, "owner_gone"),
        ("%srv.f", {}, "owner_gone"),
        ("%owner.1.run(1)", {"args": [2]}, "malformed"),
        ("%owner.1.run(1)", {"kwargs": {"a": 2}}, "malformed"),
        ("%owner.1.run(x)", {}, "malformed"),
        ("%owner.1.run(__import__('os'))", {}, "malformed"),
        ("%owner.1.run(" + "(" * 5_000 + ")" * 5_000 + ")", {}, "malformed"),
        ("%owner.1.run(" + "[" * 5_000 + "]" * 5_000 + ")", {}, "malformed"),
        ("%owner.1.run(" + "-" * 50_000 + "1)", {}, "malformed"),
        ("%owner.1.run(1, *[2])", {}, "malformed"),
        ("%owner.1.run(**{'a': 1})", {}, "malformed"),
        ("%owner.1.run(a=1, a=2)", {}, "malformed"),
        ("%owner.1.run(1", {}, "no_such_function"),
        ("%owner.1.run", [], "malformed"),
        ("%owner.1.run", {"args": 1}, "malformed"),
        ("%owner.1.run", {"kwargs": []}, "malformed"),
        ("%owner.1.run", {"argz": []}, "malformed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_at_once(
    owner: WSClient, caller: WSClient, leaf: Any, body: Any, code: str
) -> None:
    if leaf is not None:
        owner.put("g", leaf, ephemeral=True)
    started = time.monotonic()
    assert code_of(caller, caller.request("RPC", "g", body)) == code
    assert time.monotonic() - started < 0.9, "before any timeout"
    assert owner.notices() == [], "it was not asked"


@pytest.mark.parametrize("path", ["a..b", "_a", '"', "-" * 300])
def test_a_path_that_is_none(caller: WSClient, path: str) -> None:
    assert code_of(caller, caller.request("RPC", path, {})) in ("malformed", "no_such_function")


@pytest.mark.parametrize(
    ("bound", "given"),
    [
        ("()", {"args": [], "kwargs": {}}),
        ("(1)", {"args": [1], "kwargs": {}}),
        ('(1, "x, y", None, a=[1, {"b": False}])',
         {"args": [1, "x, y", None], "kwargs": {"a": [1, {"b": False}]}}),
    ],
)  # fmt: skip
def test_bound_arguments(owner: WSClient, caller: WSClient, bound: str, given: Any) -> None:
    owner.put("g", f"%owner.1.run{bound}", ephemeral=True)
    number = call(caller, {}, "g")
    request = asked(owner)
    assert {key: value or type(given[key])() for key, value in request.body.items()} == given
    answer(owner, request, "1")
    assert caller.response(number).body == 1


# -- the owner ends -------------------------------------------------------------------------------


def test_an_owner_that_is_gone(service: Service, owner: WSClient, caller: WSClient) -> None:
    caller.put("lasting", "%owner.1.run")
    owner.close()
    gone(service, "owner.1")
    assert code_of(caller, call(caller)) == "no_such_function", "its leaf went with it"
    assert code_of(caller, call(caller, path="lasting")) == "owner_gone"
    status, found = service.ask("POST", "/_rpc?path=lasting", {})
    assert (status, found["error"]["code"]) == (502, "owner_gone")


@pytest.mark.parametrize("end", ["close", "violation"])
def test_an_owner_that_ends_in_the_middle(
    owner: WSClient, caller: WSClient, end: str
) -> None:
    numbers = [call(caller) for _ in range(5)]
    for _ in numbers:
        asked(owner)
    started = time.monotonic()
    if end == "close":
        owner.close()
    else:
        owner.send_bytes(frame(b"", masked=False))
    assert [code_of(caller, number) for number in numbers] == ["owner_gone"] * 5
    assert time.monotonic() - started < 0.9


def test_the_owner_is_taken_over(service: Service, owner: WSClient, caller: WSClient) -> None:
    """What the first was asked ends with it; what comes then goes to the second, and only there."""
    before = call(caller)
    request = asked(owner)
    with WSClient(service.port, "owner.1") as second:
        after = call(caller, {"args": ["after"]})
        new = asked(second)
        assert new.body["args"] == ["after"]
        answer(second, new, '"second"')
        assert caller.response(after).body == "second"
        answer(owner, request, '"too late"')
        assert code_of(caller, before) == "owner_gone"
        owner.expect("ERROR", "taken_over")
        assert owner.ended() == 4001
        assert second.notices() == []


def test_the_caller_is_gone(service: Service, owner: WSClient) -> None:
    with WSClient(service.port, "leaving") as leaving:
        call(leaving)
        request = asked(owner)
    gone(service, "leaving")
    with WSClient(service.port, "leaving") as namesake:
        answer(owner, request, '"for who left"')
        owner.settle()
        assert namesake.notices() == [], "one of the same name has not asked"
    assert owner.notices() == []


# -- once -----------------------------------------------------------------------------------------


def test_no_call_runs_twice_and_each_is_answered(service: Service) -> None:
    """Owners and callers come and go at random."""
    chance = random.Random(7)
    ran: list[int] = []
    lock = threading.Lock()
    is_over = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                raise

        return run

    def serve() -> None:
        while not is_over.is_set():
            with WSClient(service.port, "srv.x") as serving:
                serving.put("once", "%srv.x.f", ephemeral=True)
                for _ in range(chance.randrange(1, 60)):
                    if not serving.is_readable(0.05):
                        break
                    request = asked(serving)
                    with lock:
                        ran.append(request.body["args"][0])
                    if chance.random() < 0.9:
                        answer(serving, request, str(request.body["args"][0]))

    answered: list[tuple[int, Any]] = []

    def ask(base: int) -> None:
        with WSClient(service.port, f"c{base}", timeout=SOON) as asking:
            for n in range(base, base + 300, 4):
                numbers = {call(asking, {"args": [m]}, "once"): m for m in range(n, n + 4)}
                for number, m in numbers.items():
                    found = asking.response(number)
                    if found.words[-1] == "ERROR":
                        assert found.body["code"] in (
                            "owner_gone", "call_timeout", "no_such_function"
                        ), found  # fmt: skip
                    else:
                        answered.append((m, found.body))

    serving = threading.Thread(target=guarded(serve))
    asking = [threading.Thread(target=guarded(lambda b=b: ask(b))) for b in (0, 1_000, 2_000)]  # type: ignore
    for thread in (serving, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    is_over.set()
    serving.join()
    assert errors == []
    assert len(ran) == len(set(ran)), "none twice"
    assert all(asked_for == found for asked_for, found in answered)
    assert {asked_for for asked_for, _ in answered} <= set(ran)
    assert len(answered) > 50
