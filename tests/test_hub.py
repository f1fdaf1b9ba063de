"""The definition for the Meltano Hub: the hub's rules, the tap's settings, and Meltano with it.

The hub checks more with its JSON schemas; here are the rules that a change can break.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from bank import serving
from parts import MELTANO, QUIET, ROOT
from settings_forms import as_meltano_declares

from tap_balance.sandbox import settings_of
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_balance.sandbox import Sandbox

DEFINITION = ROOT / "hub" / "tap-balance.yml"
REQUIRED = {"name", "namespace", "quality", "variant"}
OTHERS = {
    *("capabilities", "description", "domain_url", "executable", "keywords", "label"),
    *("logo_url", "maintenance_status", "next_steps", "pip_url", "prereq", "repo", "settings"),
    *("settings_group_validation", "settings_preamble", "supported_python_versions", "usage"),
}
# Stream maps and flattening; those of `faker` would need a package that the tap does not install.
SDK_SETTINGS = {"stream_maps", "stream_map_config"} | {
    f"flattening_{name}" for name in ("enabled", "max_depth", "max_key_length", "separator")
}


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))
    return document


def test_it_has_the_keys_that_the_hub_knows_in_the_hub_s_order(definition: dict[str, Any]) -> None:
    assert set(definition) >= REQUIRED
    assert set(definition) <= REQUIRED | OTHERS
    assert list(definition) == sorted(definition)
    assert definition["quality"] in {"gold", "silver", "bronze", "unknown"}
    assert definition["maintenance_status"] in {"active", "beta", "development", "inactive"}
    for setting in definition["settings"]:
        assert list(setting) == sorted(setting)


def test_it_names_the_package_its_command_and_what_it_can_do(definition: dict[str, Any]) -> None:
    assert definition["name"] == definition["executable"] == TapBalance.name
    assert definition["namespace"] == "tap_balance"
    assert definition["pip_url"].split()[0] == TapBalance.package_name
    assert definition["capabilities"] == sorted(item.value for item in TapBalance.capabilities)


def test_it_declares_every_setting_as_the_tap_does(definition: dict[str, Any]) -> None:
    declared = {setting["name"]: setting for setting in definition["settings"]}
    assert list(declared) == sorted(declared)
    own = {name: declared[name] for name in declared if name not in SDK_SETTINGS}
    forms = {name: {"name": name} | form for name, form in as_meltano_declares().items()}
    assert own == forms, "hub/tap-balance.yml: let `settings` follow schemas/settings.json"
    assert set(declared) - set(own) == SDK_SETTINGS
    known: dict[str, Any] = {"properties": {}}
    TapBalance.append_builtin_config(known)
    assert set(known["properties"]) >= SDK_SETTINGS


def test_it_supports_the_pythons_that_the_package_does(definition: dict[str, Any]) -> None:
    classifiers = metadata("tap-balance").get_all("Classifier") or []
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    assert definition["supported_python_versions"] == promised


def test_it_groups_the_settings_as_meltano_yml_does(definition: dict[str, Any]) -> None:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    (tap,) = project["plugins"]["extractors"]
    assert definition["settings_group_validation"] == tap["settings_group_validation"]
    assert definition["capabilities"] == tap["capabilities"]


class Hub(HTTPServer):
    """A hub that counts who asks, and knows nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Refusal)


class _Refusal(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server, serving(server):
        yield server


@pytest.mark.e2e
def test_meltano_adds_the_tap_from_it_offline_and_runs_it(
    meltano: None, hub: Hub, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The tap's venv is the one that `make` has installed; adding it from the index needs a net."""
    assert meltano is None
    (tmp_path / "meltano.yml").write_text("send_anonymous_usage_stats: false\n")
    (tmp_path / ".meltano").mkdir()
    (tmp_path / ".meltano" / "extractors").symlink_to(ROOT / ".meltano" / "extractors")
    accounts = settings_of(sandbox.url, "example", "otp")["accounts"]
    nowhere = "http://127.0.0.1:9"  # where proxied requests end
    environment = (
        os.environ
        | QUIET
        | {
            "HTTPS_PROXY": nowhere,
            "MELTANO_HUB_URL": f"http://127.0.0.1:{hub.server_port}",
            "TAP_BALANCE_ACCOUNTS": json.dumps(accounts),
            "TAP_BALANCE_BASE_URL": sandbox.url,
        }
    )

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [MELTANO, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("add", "tap-balance", "--from-ref", DEFINITION, "--no-install")
    assert hub.asked == []
    out = run("invoke", "--no-install", "tap-balance")
    messages = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [message["type"] for message in messages] == ["SCHEMA", "RECORD", "RECORD", "STATE"]
