# Jupyter's settings for `make studio`: a server for one person on this machine. It listens on
# localhost alone, asks for the token that it makes at its start (the address it opens has it), and
# answers to no other host name than localhost.
c = get_config()  # noqa: F821
c.ServerApp.ip = "localhost"
c.ServerApp.allow_remote_access = False
c.ServerApp.open_browser = True
c.ServerApp.allow_root = True  # as containers have it
c.ServerApp.default_url = "/voila/render/00_studio.ipynb"
c.ServerApp.terminals_enabled = False
c.ServerApp.jpserver_extensions = {"nstlab.live.server": True}  # odd addresses are not found
# by an address
c.VoilaConfiguration.allow_template_override = c.VoilaConfiguration.allow_theme_override = "NO"
# Every visit of the page has a kernel of its own, of some 600 MB. It ends when its page is closed;
# where the browser could not say so, ten minutes after the last sign of life.
c.MappingKernelManager.cull_idle_timeout = 600
c.MappingKernelManager.cull_interval = 60
