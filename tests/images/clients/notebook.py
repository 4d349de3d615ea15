"""Use a Jupyter server over its REST and websocket interfaces: ``python - URL TOKEN kernel|terminal CODE``."""

import asyncio
import json
import sys
import urllib.request
import uuid

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

PATIENCE = 300
"""Seconds until an answer counts as never coming."""


def post(url, token, path):
    """Return the JSON that a POST answers."""
    request = urllib.request.Request(f"{url}{path}", method="POST", data=b"{}", headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def message(code):
    """Return an execute_request of the Jupyter protocol."""
    header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3", "date": ""}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
    return {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content, "buffers": []}


async def kernel(url, token, code):
    """Run code in a new kernel and print what it prints; leave the kernel running."""
    found = post(url, token, "api/kernels")
    socket = await opened(url, token, f"api/kernels/{found['id']}/channels")
    request = message(code)
    await socket.write_message(json.dumps(request))
    reply, idle = None, False
    while reply is None or not idle:  # reply and output come on channels of their own: either may be first
        answer = json.loads(await asyncio.wait_for(socket.read_message(), PATIENCE))
        if answer["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        if answer["msg_type"] == "stream":
            print(answer["content"]["text"], end="", flush=True)
        if answer["msg_type"] == "execute_reply":
            reply = answer["content"]
        idle = idle or (answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle")
    return 0 if reply["status"] == "ok" else print(reply) or 1


async def terminal(url, token, code):
    """Type a command into a new terminal and print all that it shows, until the terminal closes."""
    found = post(url, token, "api/terminals")
    socket = await opened(url, token, f"terminals/websocket/{found['name']}")
    await socket.write_message(json.dumps(["stdin", f"{code}; exit\r"]))
    while True:
        text = await asyncio.wait_for(socket.read_message(), PATIENCE)
        kind, *rest = json.loads(text) if text else ("disconnect",)
        if kind == "stdout":
            print(rest[0], end="")
        if kind == "disconnect":
            return 0


async def opened(url, token, path):
    """Return a websocket, authorised by header; the server lets it in once the kernel has started."""
    patient = {"connect_timeout": PATIENCE, "request_timeout": PATIENCE}
    return await websocket_connect(HTTPRequest(url.replace("http", "ws", 1) + path, headers={"Authorization": f"token {token}"}, **patient))


if __name__ == "__main__":
    sys.exit(asyncio.run({"kernel": kernel, "terminal": terminal}[sys.argv[3]](sys.argv[1], sys.argv[2], sys.argv[4])))
