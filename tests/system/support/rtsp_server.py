"""A camera's RTSP server (GStreamer's) with a tone for sound: rtsp_server.py PORT ENCODING [USER PASSWORD].

ENCODING is alaw, mulaw, l16, l24, aac, opus or video (no sound at all). Prints "ready"; a line "stall" or "go" on standard input stops or
resumes the sound while the sessions stay; the end of standard input ends it.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PORT, ENCODING = sys.argv[1], sys.argv[2]
TONE = "audiotestsrc is-live=true freq=441 volume=0.5 samplesperbuffer=320 name=tone ! valve name=valve ! audio/x-raw,rate={},channels={} ! "
SOUND = {
    "alaw": TONE.format(8000, 1) + "alawenc ! rtppcmapay name=pay0 pt=8",
    "mulaw": TONE.format(8000, 1) + "mulawenc ! rtppcmupay name=pay0 pt=0",
    "l16": TONE.format(44100, 2) + "audioconvert ! rtpL16pay name=pay0 pt=96",
    "l24": TONE.format(48000, 1) + "audioconvert ! rtpL24pay name=pay0 pt=96",
    "aac": TONE.format(16000, 1) + "audioconvert ! avenc_aac bitrate=48000 ! aacparse ! rtpmp4gpay name=pay0 pt=97",
    "opus": TONE.format(48000, 2) + "audioconvert ! opusenc bitrate=64000 ! rtpopuspay name=pay0 pt=98",
    "video": "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=5/1 ! jpegenc ! rtpjpegpay name=pay0 pt=26",
}

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(PORT)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( " + SOUND[ENCODING] + " )")
factory.set_shared(True)
valves = []


def configure(_factory, media):
    valve = media.get_element().get_by_name("valve")
    if valve is not None:
        valves.append(valve)


factory.connect("media-configure", configure)
if len(sys.argv) > 3:
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(sys.argv[3], sys.argv[4], token)
    server.set_auth(auth)
    factory.add_role_from_structure(Gst.Structure.from_string("user, media.factory.access=true, media.factory.construct=true")[0])
server.get_mount_points().add_factory("/sound", factory)
server.attach(None)
loop = GLib.MainLoop()


def obey():
    for line in sys.stdin:
        for valve in valves:
            valve.set_property("drop", line.strip() == "stall")
    loop.quit()


threading.Thread(target=obey, daemon=True).start()
print("ready", flush=True)
loop.run()
