"""CoDi for ComfyUI: any-to-any generation of text, images, video and sound.

Nothing is imported here, so that test runners and packaging tools may import this file without a ComfyUI around.
"""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    """ComfyUI's entry point: the extension with the nodes of this pack."""
    from .nodes.extension import CoDiExtension

    return CoDiExtension()
