# The web ACL. Its rate rules are for floods, not for fairness: a platform with a thousand students calls from one address.

locals {
  # A shared load balancer has the web ACL of its owner.
  waf_on     = var.waf.enabled && local.own_load_balancer
  waf_logs   = local.waf_on && var.waf.log_blocked
  waf_trusts = local.waf_on && length(var.waf.trusted_cidrs) > 0
}

resource "aws_wafv2_ip_set" "trusted" {
  count = local.waf_trusts ? 1 : 0

  name               = "${var.name}-trusted"
  description        = "Addresses of platforms, never limited"
  scope              = "REGIONAL"
  ip_address_version = "IPV4"
  addresses          = var.waf.trusted_cidrs
  tags               = local.tags
}

resource "aws_wafv2_web_acl" "this" {
  count = local.waf_on ? 1 : 0

  name        = var.name
  description = "Sandbox broker: floods and known bad inputs"
  scope       = "REGIONAL"
  tags        = local.tags

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = aws_wafv2_ip_set.trusted
    content {
      name     = "trusted"
      priority = 0

      action {
        allow {}
      }

      statement {
        ip_set_reference_statement {
          arn = rule.value.arn
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-trusted"
        sampled_requests_enabled   = false
      }
    }
  }

  rule {
    name     = "AWSManagedRulesAmazonIpReputationList"
    priority = 10

    override_action {
      none {}
    }

    statement {
      managed_rule_group_statement {
        name        = "AWSManagedRulesAmazonIpReputationList"
        vendor_name = "AWS"
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-AWSManagedRulesAmazonIpReputationList"
      sampled_requests_enabled   = true
    }
  }

  rule {
    name     = "AWSManagedRulesKnownBadInputsRuleSet"
    priority = 11

    override_action {
      none {}
    }

    statement {
      managed_rule_group_statement {
        name        = "AWSManagedRulesKnownBadInputsRuleSet"
        vendor_name = "AWS"
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-AWSManagedRulesKnownBadInputsRuleSet"
      sampled_requests_enabled   = true
    }
  }

  # Who does not even send a token is no client of ours: scanners, and a client that lost its configuration.
  rule {
    name     = "without-token"
    priority = 20

    action {
      block {
        custom_response {
          response_code = 429
        }
      }
    }

    statement {
      rate_based_statement {
        limit              = var.waf.without_token_per_5_min
        aggregate_key_type = "IP"

        scope_down_statement {
          not_statement {
            statement {
              size_constraint_statement {
                comparison_operator = "GT"
                size                = 0

                field_to_match {
                  single_header {
                    name = "authorization"
                  }
                }

                text_transformation {
                  priority = 0
                  type     = "NONE"
                }
              }
            }
          }
        }
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-without-token"
      sampled_requests_enabled   = true
    }
  }

  rule {
    name     = "flood"
    priority = 21

    action {
      block {
        custom_response {
          response_code = 429
        }
      }
    }

    statement {
      rate_based_statement {
        limit              = var.waf.requests_per_5_min
        aggregate_key_type = "IP"
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-flood"
      sampled_requests_enabled   = true
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = true
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  count = local.waf_on ? 1 : 0

  resource_arn = aws_lb.this[0].arn
  web_acl_arn  = aws_wafv2_web_acl.this[0].arn
}

# The name's beginning is prescribed by AWS.
resource "aws_cloudwatch_log_group" "waf" {
  #checkov:skip=CKV_AWS_158:kms_key_arn is the caller's choice; without it logs are encrypted by a key that AWS owns
  #checkov:skip=CKV_AWS_338:log_retention_days is a year by default; shorter is the caller's choice
  count = local.waf_logs ? 1 : 0

  name              = "aws-waf-logs-${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

# Only what was blocked, and never a token.
resource "aws_wafv2_web_acl_logging_configuration" "this" {
  count = local.waf_logs ? 1 : 0

  resource_arn            = aws_wafv2_web_acl.this[0].arn
  log_destination_configs = [aws_cloudwatch_log_group.waf[0].arn]

  redacted_fields {
    single_header {
      name = "authorization"
    }
  }

  logging_filter {
    default_behavior = "DROP"

    filter {
      behavior    = "KEEP"
      requirement = "MEETS_ANY"

      condition {
        action_condition {
          action = "BLOCK"
        }
      }
    }
  }
}
