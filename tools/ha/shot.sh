#!/usr/bin/env bash
# A picture of one of Home Assistant's pages, by a headless Chromium: tools/ha/shot.sh ROOT BASE TOKEN PATH FILE.png
set -euo pipefail
root="$1" base="$2" token="$3" path="$4" file="$5"
here="$(cd "$(dirname "$0")" && pwd)"
"$here/../apt-install" chromium:chromium
profile="$(mktemp -d)"
chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" --window-size=1000,1000 \
    --remote-debugging-address=127.0.0.1 --remote-debugging-port=0 about:blank >"$profile.log" 2>&1 &
browser=$!
trap 'kill $browser 2>/dev/null || true; wait $browser 2>/dev/null || true; rm -rf "$profile" "$profile.log"' EXIT
for _ in $(seq 150); do [ -s "$profile/DevToolsActivePort" ] && break; sleep 0.2; done
port="$(sed -n 1p "$profile/DevToolsActivePort")"
# Home Assistant's own Python has a websocket client.
"$here/enter.sh" "$root" /ha/bin/python - "$base" "$token" "$path" "$port" <<'SHOT' >"$file"
import asyncio
import base64
import json
import sys
import time

import aiohttp

base, token, path, port = sys.argv[1:]


async def main():
    async with aiohttp.ClientSession() as session:
        pages = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
        page = next(page for page in pages if page["type"] == "page")
        socket = await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        count = 0

        async def call(method, **parameters):
            nonlocal count
            count += 1
            await socket.send_json({"id": count, "method": method, "params": parameters})
            while True:
                answer = await socket.receive_json(timeout=60)
                if answer.get("id") == count:
                    return answer["result"]

        await call("Page.enable")
        await call("Page.navigate", url=f"{base}/manifest.json")
        await asyncio.sleep(1)
        # The page finds itself logged in.
        tokens = {
            "access_token": token, "token_type": "Bearer", "expires_in": 1500, "hassUrl": base, "clientId": base + "/",
            "expires": int(time.time() * 1000) + 1_500_000, "refresh_token": "none",
        }
        value = json.dumps(json.dumps(tokens))
        await call("Runtime.evaluate", expression=f"localStorage.setItem('hassTokens', {value})")
        hidden = json.dumps(json.dumps("always_hidden"))
        await call("Runtime.evaluate", expression=f"localStorage.setItem('dockedSidebar', {hidden})")
        await call("Page.navigate", url=base + path)
        # What the page shows stands in its first two columns.
        seen = {"x": 0, "y": 0, "width": 668, "height": 850, "scale": 1}
        # It holds a websocket open and so is never done: long enough for a busy machine.
        await asyncio.sleep(15)
        sys.stdout.buffer.write(base64.b64decode((await call("Page.captureScreenshot", format="png", clip=seen))["data"]))


asyncio.run(main())
SHOT
