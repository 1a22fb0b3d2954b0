"""Speech as OpenAI's API has it, spoken by espeak-ng: a server to put behind `assay up --relay`.

    python3 docs/guides/servers/speech.py 8090
    assay up --relay espeak=http://127.0.0.1:8090

Needs nothing but Python and the program `espeak-ng`.
"""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 64 << 10
TEXT_MAX = 4096
WORDS_A_MINUTE = 175
# OpenAI's names of voices, as espeak-ng has some like them.
VOICES = {"alloy": "en-us", "echo": "en-us+m3", "nova": "en-us+f3", "onyx": "en-us+m7", "shimmer": "en-us+f4"}


def spoken(asked):
    """The recording, or why there is none."""
    text, voice = asked.get("input"), asked.get("voice", "alloy")
    if not isinstance(text, str) or not 0 < len(text) <= TEXT_MAX:
        return None, f"input must be a text of 1 to {TEXT_MAX} characters"
    if voice not in VOICES:
        return None, f"voice must be one of {', '.join(VOICES)}"
    if asked.get("response_format", "mp3") not in ("mp3", "wav"):
        return None, "only wav is made here"
    speed = asked.get("speed", 1)
    if not isinstance(speed, (int, float)) or not 0.25 <= speed <= 4:
        return None, "speed must be 0.25 to 4"
    words = str(round(WORDS_A_MINUTE * speed))
    command = ["espeak-ng", "--stdout", "--stdin", "-v", VOICES[voice], "-s", words]
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60)
    return (done.stdout, None) if done.returncode == 0 else (None, "espeak-ng failed")


class Speech(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if self.path != "/v1/audio/speech" or not 0 < length <= BODY_BYTES_MAX:
            return self.reply(404, "application/json", b'{"error":{"message":"only /v1/audio/speech is here"}}')
        try:
            asked = json.loads(self.rfile.read(length))
            sound, why = spoken(asked) if isinstance(asked, dict) else (None, "the body is no object")
        except ValueError:
            sound, why = None, "the body is no JSON"
        except subprocess.TimeoutExpired:
            sound, why = None, "espeak-ng took too long"
        if sound is not None:
            return self.reply(200, "audio/wav", sound)
        error = {"error": {"message": why, "type": "invalid_request_error"}}
        return self.reply(400, "application/json", json.dumps(error).encode())

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8090)
    with ThreadingHTTPServer(address, Speech) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
