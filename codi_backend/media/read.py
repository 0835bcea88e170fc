"""Files of text, images, audio and video as tensors; `MediaInfo` has a file's length and contents.

One timeline per file: time 0 is when the earliest of its audio and video streams is first presented.
"""

from .audio_file import read_audio
from .image_file import read_image
from .probe import MediaInfo, probe
from .text_file import read_text
from .video_file import frames_of, read_video

__all__ = ["MediaInfo", "frames_of", "probe", "read_audio", "read_image", "read_text", "read_video"]
