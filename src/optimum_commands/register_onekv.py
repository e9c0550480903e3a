"""optimum finds this file in its namespace `optimum.commands.register`."""

from optimum.commands.export.base import ExportCommand

from onekv.optimum_command import OnekvExportCommand

REGISTER_COMMANDS = [(OnekvExportCommand, ExportCommand)]
