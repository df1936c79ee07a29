#!/usr/bin/python3
"""A camera: serves a test picture and a tone at rtsp://ADDRESS:PORT/cam, prints the port, and changes the picture's size
at SIGUSR1."""
import argparse
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

VIDEO = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96",
    # A pyramid of three B-frames. Parameter sets are sent in band, too: the SDP of a live pipeline may lack them.
    "h264-bframes": "x264enc speed-preset=veryfast rc-lookahead=4 sync-lookahead=0 bframes=3 b-adapt=false b-pyramid=true"
    " key-int-max=30 ! video/x-h264,profile=high ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph265pay name=pay0 pt=96 config-interval=-1",
    "vp8": "vp8enc deadline=1 ! rtpvp8pay name=pay0 pt=96",
}
AUDIO = {
    "aac": "audioconvert ! avenc_aac ! rtpmp4gpay name=pay1 pt=97",
    "alaw": "audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8",
    "mulaw": "audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0",
    "none": None,
}

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--video", choices=VIDEO, default="h264")
options.add_argument("--audio", choices=AUDIO, default="aac")
options.add_argument("--size", default="320x180")
options.add_argument("--then", default="160x90", help="the size after SIGUSR1")
options.add_argument("--user", help="NAME:PASSWORD that are asked for")
options.add_argument("--only-udp", action="store_true")
options.add_argument("--address", default="127.0.0.1")
options.add_argument("--port", default="0")
options = options.parse_args()


def caps(size):
    width, height = size.split("x")
    return f"video/x-raw,width={width},height={height},framerate=30/1,format=I420"


Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
picture = f"videotestsrc is-live=true ! capsfilter name=size caps={caps(options.size)} ! {VIDEO[options.video]}"
sound = f" audiotestsrc is-live=true ! {AUDIO[options.audio]}" if AUDIO[options.audio] else ""
factory.set_launch(f"( {picture}{sound} )")
factory.set_shared(True)
if options.only_udp:
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)


def configured(_factory, media):
    size = media.get_element().get_by_name("size")

    def resize():
        size.set_property("caps", Gst.Caps.from_string(caps(options.then)))
        return GLib.SOURCE_REMOVE

    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR1, resize)


factory.connect("media-configure", configured)
server = GstRtspServer.RTSPServer()
if options.user:
    name, password = options.user.split(":")
    viewer = GstRtspServer.RTSPToken()
    viewer.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(name, password, viewer)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
    permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
    factory.set_permissions(permissions)
server.set_address(options.address)
server.set_service(options.port)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
