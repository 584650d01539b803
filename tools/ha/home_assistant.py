"""A Home Assistant in a chroot, and what it knows of the MQTT devices: through its own API."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENTRY = "clapd0000000000000000000000000001"

CONFIGURATION = """\
homeassistant:
  name: Home
  latitude: 0
  longitude: 0
  unit_system: metric
  time_zone: UTC
  country: DE
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
mqtt:
logger:
  default: info
  logs:
    homeassistant.components.mqtt: debug
"""


class HomeAssistant:
    def __init__(self, root, port, broker):
        self.root, self.port, self.broker = Path(root), port, broker
        self.base = f"http://127.0.0.1:{port}"
        self.folder = self.root / "cfg"
        self.log = self.root / "hass.log"
        self.process = None
        self.token = None

    def reset(self):
        """As newly installed, but for the questions that it asks its owner; with the broker as its MQTT integration."""
        subprocess.run(["rm", "-rf", self.folder], check=True)
        storage = self.folder / ".storage"
        storage.mkdir(parents=True)
        (self.folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self.port))
        entry = {
            "entry_id": ENTRY, "version": 1, "minor_version": 2, "domain": "mqtt", "title": "broker",
            "data": {"broker": "127.0.0.1", "port": self.broker, "protocol": "5"},
            "options": {"discovery": True, "discovery_prefix": "homeassistant"},
            "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user", "unique_id": None,
            "disabled_by": None, "created_at": "2026-01-01T00:00:00+00:00", "modified_at": "2026-01-01T00:00:00+00:00",
            "discovery_keys": {}, "subentries": [],
        }
        self.store(storage, "core.config_entries", 1, 5, {"entries": [entry]})
        # The other steps would load integrations that are not installed.
        self.store(storage, "onboarding", 4, 1, {"done": ["core_config", "analytics", "integration"]})
        self.log.write_text("")
        self.token = None

    @staticmethod
    def store(folder, key, version, minor, data):
        text = json.dumps({"version": version, "minor_version": minor, "key": key, "data": data})
        (folder / key).write_text(text)

    def start(self):
        (self.root / "etc/resolv.conf").write_text("")  # it looks nothing up
        marks = self.births()
        command = [HERE / "enter.sh", self.root, "/ha/bin/hass", "-c", "/cfg", "--skip-pip", "--log-no-color"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log.open("a"), stderr=subprocess.STDOUT
        )
        wait_for("Home Assistant runs", self.is_running, 180)
        wait_for("Home Assistant has announced itself", lambda: self.births() > marks, 60)

    def is_running(self):
        if self.process.poll() is not None:
            raise SystemExit(f"Home Assistant ended; see {self.log}")
        try:
            self.token = self.token or self.log_in()
            return self.call("/api/config")["state"] == "RUNNING"
        except (OSError, KeyError, ValueError):
            return False

    def births(self):
        return self.log.read_text(errors="replace").count("Transmitting message on homeassistant/status: 'online'")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def log_in(self):
        """A token that outlives restarts: of the owner, who is made at the first start."""
        me = self.base + "/"
        owner = {"client_id": me, "name": "Owner", "username": "owner", "password": "password", "language": "en"}
        code = self.request("/api/onboarding/users", owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": me}
        tokens = self.request("/auth/token", urllib.parse.urlencode(form).encode())
        self.refresh = tokens["refresh_token"]
        return tokens["access_token"]

    def request(self, path, data=None, headers=()):
        headers = dict(headers)
        if isinstance(data, dict):
            data, headers["Content-Type"] = json.dumps(data).encode(), "application/json"
        request = urllib.request.Request(self.base + path, data, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        text = opener.open(request, timeout=20).read().decode()
        return json.loads(text) if text[:1] in ("{", "[") else text

    def call(self, path, data=None):
        for attempt in (1, 2):
            try:
                return self.request(path, data, {"Authorization": f"Bearer {self.token}"})
            except urllib.error.HTTPError as error:
                if error.code != 401 or attempt == 2:
                    raise
                form = {"grant_type": "refresh_token", "refresh_token": self.refresh, "client_id": self.base + "/"}
                self.token = self.request("/auth/token", urllib.parse.urlencode(form).encode())["access_token"]

    def template(self, text):
        return self.call("/api/template", {"template": text})

    def state(self, entity):
        """The state's text and attributes; (None, {}) where there is no such entity."""
        try:
            found = self.call(f"/api/states/{entity}")
            return found["state"], found["attributes"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None, {}

    def entities(self):
        """The states of all entities that MQTT has made, by id; orphans, too."""
        known = self.template(
            "{%% set n = namespace(ids=[]) %%}{%% for s in states if config_entry_id(s.entity_id) == '%s' %%}"
            "{%% set n.ids = n.ids + [s.entity_id] %%}{%% endfor %%}{{ n.ids | to_json }}" % ENTRY
        )
        return {state["entity_id"]: state for state in self.call("/api/states") if state["entity_id"] in known}

    def device(self, entity):
        """What it shows of the device that an entity belongs to."""
        keys = ["id", "name", "manufacturer", "model", "model_id", "sw_version"]
        pairs = ", ".join(f"'{key}': device_attr(d, '{key}')" for key in keys if key != "id")
        text = "{%% set d = device_id('%s') %%}{{ {'id': d, %s} | to_json }}" % (entity, pairs)
        return self.template(text)

    def complaints(self):
        """Warnings and errors of MQTT, or about us; but not that the broker was away."""
        lines = re.findall(r"^.* (?:WARNING|ERROR|CRITICAL) .*$", self.log.read_text(errors="replace"), re.M)
        away = ("The connection was lost", "failed to receive on socket", "Failed to connect to MQTT server")
        return [line for line in lines if ("mqtt" in line or "clapd" in line) and not any(word in line for word in away)]


def wait_for(what, look, seconds):
    """Waits until `look` gives something true, and returns that; the last it gave is shown where it never does."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return seen
