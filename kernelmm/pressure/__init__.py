# SPDX-License-Identifier: GPL-2.0-only
"""What happens when memory is short, or when a certain range of it is wanted."""
