"""A real PACS: Orthanc with DICOMweb, and a web front that serves the OHIF viewer, on loopback.

Needs Debian's `orthanc orthanc-dicomweb` (scripts/install-viewer). Only the process that was started here is ended.
"""

from __future__ import annotations

import http.client
import io
import json
import mimetypes
import os
import posixpath
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from pydicom import Dataset, dcmread

_PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
)
_PROXIED = ("/dicom-web", "/wado")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; connect-src 'self' blob: data:; img-src 'self' blob: data:; "
        "worker-src 'self' blob:; font-src 'self' data:"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_APP_CONFIG = """window.config = {
  name: 'medgem-node', routerBasename: '/', extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 1, showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  strictZSpacingForVolumeViewport: true, investigationalUseDialog: { option: 'never' },
  maxNumRequests: { interaction: 20, thumbnail: 5, prefetch: 5 },
  defaultDataSourceName: 'dicomweb',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: location.origin + '/wado',
      qidoRoot: location.origin + '/dicom-web', wadoRoot: location.origin + '/dicom-web',
      qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
      omitQuotationForMultipartRequest: true, bulkDataURI: { enabled: true, relativeResolution: 'studies' },
    },
  }],
};
"""


def orthanc_binary() -> str | None:
    """Where Orthanc is, if it is installed."""
    return shutil.which("Orthanc") or next((p for p in ("/usr/sbin/Orthanc",) if os.path.exists(p)), None)


def viewer_folder() -> Path:
    """Where scripts/install-viewer puts OHIF and playwright-core."""
    return Path(os.environ.get("MEDGEM_VIEWER") or Path.home() / ".cache" / "medgem-node-viewer")


def missing() -> str:
    """What is not installed, as a reason to skip; empty if all is there."""
    if orthanc_binary() is None:
        return "Orthanc is not installed: run scripts/install-viewer"
    if not any(map(os.path.exists, _PLUGINS)):
        return "Orthanc's DICOMweb plugin is not installed: run scripts/install-viewer"
    return ""


class Orthanc:
    """An empty Orthanc in `folder`, from `with` to its end.

    Parameters
    ----------
    folder
        Where its database and its log go.
    modalities
        Name to (AE title, host, port) of the peers that it may send to.
    """

    def __init__(
        self, folder: Path, modalities: Mapping[str, tuple[str, str, int]] | None = None, *, aet: str = "MEDPACS"
    ) -> None:
        self.folder, self.modalities, self.aet = Path(folder), dict(modalities or {}), aet
        self.dicom_port, self._http_port = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._front: ThreadingHTTPServer | None = None

    @property
    def web_url(self) -> str:
        """The viewer, and DICOMweb below `/dicom-web`."""
        assert self._front is not None
        return f"http://127.0.0.1:{self._front.server_address[1]}"

    def __enter__(self) -> Orthanc:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(self._configuration(), indent=1))
        binary = orthanc_binary()
        assert binary, missing()
        with (self.folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen([binary, str(path)], stdout=log, stderr=log, cwd=self.folder)
        try:
            self._await()
        except BaseException:
            self._end()
            raise
        self._front = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._http_port, viewer_folder() / "ohif/dist"))
        threading.Thread(target=self._front.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._front is not None:
            self._front.shutdown()
            self._front.server_close()
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _await(self) -> None:
        assert self._process is not None
        end = time.monotonic() + 40
        while True:
            if self._process.poll() is not None:
                raise RuntimeError("Orthanc ended: " + (self.folder / "orthanc.log").read_text()[-1500:])
            try:
                self.rest("/system")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": self.aet,
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "Plugins": [p for p in _PLUGINS if os.path.exists(p)][:1],
            "HttpPort": self._http_port,
            "HttpThreadsCount": 8,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.aet,
            "DicomPort": self.dicom_port,  # Orthanc 1.10 cannot bind it to loopback
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomCheckModalityHost": False,
            "UnknownSopClassAccepted": True,
            "DicomModalities": {name: list(peer) for name, peer in self.modalities.items()},
            "DefaultEncoding": "Utf8",
            "OverwriteInstances": True,
            "StableAge": 1,
            "DicomWeb": {
                "Enable": True,
                "Root": "/dicom-web/",
                "PublicRoot": "/dicom-web/",
                "EnableWado": True,
                "WadoRoot": "/wado",
                "StudiesMetadata": "Full",
                "SeriesMetadata": "Full",
            },
        }

    def rest(self, path: str, data: bytes | None = None, kind: str = "application/json") -> Any:
        """The answer of Orthanc's own interface; bytes where it is no JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http_port}{path}", data=data)
        if data is not None:
            request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=300) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers.get("Content-Type", "") else body

    def upload(self, *instances: Dataset) -> None:
        """Puts instances into the archive."""
        for instance in instances:
            buffer = io.BytesIO()
            instance.save_as(buffer, enforce_file_format=True)
            self.rest("/instances", buffer.getvalue(), "application/dicom")

    def studies(self) -> list[str]:
        """The Study Instance UIDs in the archive."""
        return [self.rest(f"/studies/{s}")["MainDicomTags"]["StudyInstanceUID"] for s in self.rest("/studies")]

    def instances(self, study_uid: str) -> list[Dataset]:
        """Every instance of a study, as it was stored."""
        found = self.rest(f"/studies/{self._key(study_uid)}/instances")
        return [dcmread(io.BytesIO(self.rest(f"/instances/{i['ID']}/file"))) for i in found]

    def store(self, modality: str, study_uid: str) -> None:
        """Sends a study to one of the `modalities`."""
        order = {"Resources": [self._key(study_uid)], "Synchronous": True}
        self.rest(f"/modalities/{modality}/store", json.dumps(order).encode())

    def _key(self, study_uid: str) -> str:
        found = self.rest("/tools/lookup", study_uid.encode(), "text/plain")
        return next(str(f["ID"]) for f in found if f["Type"] == "Study")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _handler(http_port: int, dist: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            if path.startswith(_PROXIED):
                self._proxy()
            elif path == "/app-config.js":
                self._send(200, _APP_CONFIG.encode(), "application/javascript")
            else:
                self._file(posixpath.normpath(urllib.parse.unquote(path)).lstrip("/"))

        def do_POST(self) -> None:
            self._proxy()

        def _file(self, name: str) -> None:
            file = (dist / name).resolve()
            if not (file.is_relative_to(dist.resolve()) and file.is_file()):
                if "." in posixpath.basename(name):  # a missing asset is not the application's page
                    return self._send(404, b"", "text/plain")
                file = dist / "index.html"
            kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file.name)[0]
            return self._send(200, file.read_bytes(), kind or "application/octet-stream")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _proxy(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            host = self.headers.get("Host", "127.0.0.1")
            kept = {k: v for k, v in self.headers.items() if k.lower() in ("accept", "content-type", "range")}
            upstream = http.client.HTTPConnection("127.0.0.1", http_port, timeout=300)
            try:
                headers = {**kept, "Host": host, "Forwarded": f"proto=http;host={host}"}  # Orthanc's links name it
                upstream.request(self.command, self.path, self.rfile.read(length) if length else None, headers)
                answer = upstream.getresponse()
                body = answer.read()
                self._send(answer.status, body, answer.headers.get("Content-Type", "application/octet-stream"))
            except OSError as exc:
                self._send(502, type(exc).__name__.encode(), "text/plain")
            finally:
                upstream.close()

    return Handler
