"""Draws pages of documents: GET /documents/FOLDER/NAME.pdf?page=N[&width=PIXELS][&imageType=image/png|image/jpeg].

A document comes from the folder `documents` beside this file, the stand-in for a storage bucket, is cached below
$RASTER_BASE_DIR when it is first asked for, and is drawn from there. What is cached is cleared at the start.
"""

import io
import os
import shutil
import signal
import socketserver
import sys
import tempfile
import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = Path(__file__).resolve().parent / "documents"
BASE_DIR = Path(os.environ.get("RASTER_BASE_DIR") or ".")
CACHE = BASE_DIR / "lazyraster-cache"
PORT = int(os.environ.get("RASTER_HTTP_PORT") or 8000)
LEVEL = os.environ.get("RASTER_LOGGING_LEVEL") or "info"
MAX_WIDTH = 4096
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
drawing = threading.Lock()  # the renderer serves one thread at a time


class Refused(Exception):
    """A request that gets an error: status and text."""


def log(message: str, level: str = "info") -> None:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(f'time="{now}" level={level} msg="{message}"', file=sys.stderr, flush=True)


def cached(name: str) -> bytes:
    """The document's bytes, from the cache; they are put there first if need be."""
    parts = [part for part in name.split("/") if part]
    if not parts or any(part.startswith(".") for part in parts):
        raise Refused(404, "There is no such document.")
    kept, source = CACHE.joinpath(*parts), BUCKET.joinpath(*parts)
    try:
        return kept.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        document = source.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Refused(404, "There is no such document.") from None
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=".", delete=False) as partial:
        partial.write(document)
    os.replace(partial.name, kept)  # another replica may share the folder
    log(f"Cached {name}")
    return document


def number(query: dict, key: str, default: int | None, low: int, high: int) -> int | None:
    if key not in query:
        return default
    try:
        value = int(query[key][-1])
    except ValueError:
        raise Refused(400, f"{key} must be a number.") from None
    if not low <= value <= high:
        raise Refused(404 if key == "page" else 400, f"{key} must be from {low} to {high}.")
    return value


def draw(name: str, query: dict) -> tuple[str, bytes]:
    """The page that the query asks for: content type and bytes."""
    import pypdfium2

    image_type = query.get("imageType", ["image/png"])[-1]
    if image_type not in FORMATS:
        raise Refused(400, f"imageType must be one of {', '.join(FORMATS)}.")
    width = number(query, "width", None, 1, MAX_WIDTH)
    document = cached(name)
    with drawing:
        pdf = pypdfium2.PdfDocument(document)
        try:
            page = pdf[number(query, "page", 1, 1, len(pdf)) - 1]
            picture = page.render(scale=(width or 1024) / page.get_width()).to_pil().convert("RGB")
        finally:
            pdf.close()
    if width and picture.width != width:  # the renderer rounds up
        picture = picture.crop((0, 0, width, picture.height))
    out = io.BytesIO()
    picture.save(out, FORMATS[image_type], quality=85)
    return image_type, out.getvalue()


class Handler(BaseHTTPRequestHandler):
    timeout = 30

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            if url.path == "/health":
                self.send(200, "application/json", b'{"status":"ok"}\n')
            elif url.path.startswith("/documents/"):
                self.send(200, *draw(unquote(url.path.removeprefix("/documents/")), parse_qs(url.query)))
            else:
                raise Refused(404, "There is nothing here.")
        except Refused as refused:
            status, text = refused.args
            self.send(status, "text/plain; charset=utf-8", f"{text}\n".encode())
        except ConnectionError:
            pass
        except OSError as error:
            log(str(error), "error")
            self.send(500, "text/plain; charset=utf-8", f"{error}\n".encode())

    do_HEAD = do_GET

    def send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, form: str, *arguments) -> None:
        log(f"{self.client_address[0]} " + (form % arguments).replace('"', "'"))


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for requests under way
    request_queue_size = 1024
    server_bind = socketserver.TCPServer.server_bind  # HTTPServer's looks its own name up


def main() -> None:
    print("Trying to clear existing Lazyraster cached files (if any) in the background...", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    print("Launching Lazyraster service...", flush=True)
    settings = {"BaseDir": BASE_DIR, "HttpPort": PORT, "RingType": os.environ.get("RASTER_RING_TYPE") or "none", "LoggingLevel": LEVEL}
    log("Settings -----------------")
    for name, value in settings.items():
        log(f"  * {name}: {value}")
    log("--------------------------")
    server = Server(("0.0.0.0", PORT), Handler)
    for number_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()
    log("Stopped")


if __name__ == "__main__":
    main()
